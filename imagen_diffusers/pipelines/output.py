"""What a call of the cascade returns."""

from dataclasses import dataclass

import numpy as np
import PIL.Image
from diffusers.utils.outputs import BaseOutput
from torch import Tensor

HandedOut = list[PIL.Image.Image] | np.ndarray | Tensor


@dataclass
class ImagenCascadePipelineOutput(BaseOutput):
    """What a call returns.

    Args:
        images: the last stage's images, as asked for by `output_type`.
        stage_images: the same for every stage that ran, first to last; its last entry is `images`. Where windows of images were painted,
            by `padding_mask_crop`, these are the windows.
        nsfw_detected: which of `images` a safety checker found unsafe; None where the pipeline has none.
    """

    images: HandedOut
    stage_images: list[HandedOut]
    nsfw_detected: list[bool] | None = None
