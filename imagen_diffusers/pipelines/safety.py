"""What is done to finished images before they are handed out: a safety checker looks at them, a watermarker marks them.

Neither is there unless it is given. Both are called as DeepFloyd IF's and Stable Diffusion's are, so that theirs fit.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from torch import Tensor

from .output import HandedOut


class SafetyMixin:
    """The components `safety_checker`, `feature_extractor` and `watermarker`, and what they do."""

    safety_checker: Any
    feature_extractor: Any
    watermarker: Any
    image_processor: VaeImageProcessor
    _execution_device: torch.device
    _unseen = False

    @contextmanager
    def unseen(self) -> Iterator[None]:
        """Inside, images are handed out as they are: they are to be painted on, and nobody sees them yet."""
        self._unseen = True
        try:
            yield
        finally:
            self._unseen = False

    def check_can_be_marked(self, output_type: str) -> None:
        """A watermarker marks PIL images alone.

        Raises:
            ValueError: for a watermarker and images of another type.
        """
        if self.watermarker is not None and output_type != "pil":
            raise ValueError(f'the watermarker marks PIL images and output_type is "{output_type}"; give "pil", or take it off')

    def hand_out(self, images: Tensor, output_type: str) -> tuple[HandedOut, list[bool] | None]:
        """Images (N, C, H, W) in [0, 1] as asked for by `output_type`, and which of them the checker found unsafe; None without one."""
        flags = None
        if self.safety_checker is not None and not self._unseen:
            shown: Any = VaeImageProcessor.pt_to_numpy(images)
            clip_input = None
            if self.feature_extractor is not None:
                pixels = self.feature_extractor(VaeImageProcessor.numpy_to_pil(shown), return_tensors="pt").pixel_values
                dtype = getattr(self.safety_checker, "dtype", torch.float32)
                clip_input = pixels.to(self._execution_device, dtype)
            shown, *found = self.safety_checker(images=shown, clip_input=clip_input)
            flags = [bool(any(each)) for each in zip(*(flag for flag in found if flag is not None), strict=True)]
            images = torch.from_numpy(np.asarray(shown)).permute(0, 3, 1, 2).to(images).clamp(0, 1)
        handed: Any = self.image_processor.postprocess(images, output_type, do_denormalize=[False] * len(images))
        if self.watermarker is not None and not self._unseen:
            handed = self.watermarker.apply_watermark(handed, handed[0].height)
        return handed, flags
