"""How images become what an extractor reads: resized with antialiasing, cropped, and brought to the network's range.

Resizing without antialiasing moves a Frechet distance by more than models differ (Parmar et al. 2022), so the filter is part of an
extractor's fingerprint. It is torch's, which is Pillow's within rounding, on any device and whatever else is installed.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor

from imagen_diffusers.text.encoders import without_own_code

SAME = 3 / 255  # of a channel: what rounding to 8 bits moves pixels by, at most
FILTERS = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers of them, as processors' configs have them


@dataclass(frozen=True)
class Preparation:
    """What is done to images (B, 3, H, W) in [0, 1].

    Args:
        size: the sides (height, width) they are resized to, or one number for the shorter side.
        crop: height and width of the middle that is kept; None to keep all.
        filter: "bicubic" or "bilinear", both antialiased.
        mean, std: of each channel, which are taken off.
    """

    size: tuple[int, int] | int
    crop: tuple[int, int] | None = None
    filter: str = "bicubic"
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    @classmethod
    def load(cls, name: str) -> "Preparation":
        """As the image processor of a transformers model says, by its folder or Hub id.

        Raises:
            ValueError: for a filter that torch has no antialiased form of, and for a processor that does more than is done here.
            OSError: for a folder or a Hub id without one.
        """
        processor = without_own_code(AutoImageProcessor.from_pretrained, name, backend="pil")  # the same with torchvision and without
        told = processor.to_dict()
        number = int(told.get("resample", 3))
        if number not in FILTERS:
            raise ValueError(f"the image processor of {name} resizes by Pillow's filter {number}; give a model with one of {FILTERS}")
        size, crop = told.get("size") or {}, told.get("crop_size") if told.get("do_center_crop") else None
        normalized = {n: tuple(told[f"image_{n}"]) for n in ("mean", "std")} if told.get("do_normalize", True) else {}
        if "shortest_edge" in size or {"height", "width"} <= size.keys():
            sides = size["shortest_edge"] if "shortest_edge" in size else (size["height"], size["width"])
            made = cls(sides, (crop["height"], crop["width"]) if crop else None, FILTERS[number], **normalized)
            if made._is_that_of(processor):
                return made
        raise ValueError(
            f"the image processor of {name}, a {type(processor).__name__}, does more than resize, crop the middle and normalise; give a "
            "model without such, or module:name of an extractor of your own, which calls it"
        )

    @property
    def fingerprint(self) -> dict[str, Any]:
        return {"resize": f"antialiased {self.filter}", **{k: v for k, v in asdict(self).items() if k != "filter"}}

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, height, width), float32."""
        images = resized(images.float(), self._sides(*images.shape[-2:]), self.filter)
        if self.crop is not None:
            images = _middle(images, *self.crop)
        mean, std = (torch.tensor(v, device=images.device).view(3, 1, 1) for v in (self.mean, self.std))
        return (images - mean) / std

    def _is_that_of(self, processor: Any) -> bool:
        """Whether a processor, which rounds to 8 bits in between, makes the same of an image of soft spots."""
        spots = 0.1 + 0.8 * torch.rand(1, 3, 7, 10, generator=torch.Generator().manual_seed(0))
        image = (resized(spots, (224, 320)) * 255).round()
        theirs = processor(Image.fromarray(image[0].permute(1, 2, 0).byte().numpy()), return_tensors="pt")["pixel_values"]
        ours, std = self(image / 255), torch.tensor(self.std).view(3, 1, 1)
        return ours.shape == theirs.shape and bool(((ours - theirs).abs() * std).max() < SAME)

    def _sides(self, height: int, width: int) -> tuple[int, int]:
        if not isinstance(self.size, int):
            return self.size
        short = min(height, width)
        return int(self.size * height / short), int(self.size * width / short)


def resized(images: Tensor, sides: tuple[int, int], filter: str = "bicubic") -> Tensor:
    """Images (B, 3, H, W) in [0, 1] of these sides, antialiased, in [0, 1]; as they are where they have them."""
    if tuple(images.shape[-2:]) == tuple(sides):
        return images
    return F.interpolate(images, sides, mode=filter, align_corners=False, antialias=True).clamp(0, 1)


def _middle(images: Tensor, height: int, width: int) -> Tensor:
    top, left = (images.shape[-2] - height) // 2, (images.shape[-1] - width) // 2
    return images[..., top : top + height, left : left + width]
