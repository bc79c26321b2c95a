"""What a stage makes of trained things on backgrounds and in places that it is not trained on: the error by noise level, whole and in the
things' boxes, and what it loses when every caption names another thing. A network that does not read names loses nothing by that.
"""

from pathlib import Path

import torch
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

from examples.scenes.validation import WORD_LOG_SNRS, Windowed, enlarging_error
from imagen_diffusers.training.losses import LossSettings
from imagen_diffusers.training.validation import HeldOut

from .data import HELD_OUT, EmojiDataset


class EmojiFigures:
    """Named figures of a network for `train_stage(measure=...)`, all in squared errors of the clean image.

    "log_snr_-2" over whole images and "thing/log_snr_-2" in the things' boxes; "name/log_snr_-2" is by how much the latter grows when each
    caption names the next one's thing, on the same background and in the same skin tone. For a super-resolution network "bicubic" and
    "thing/bicubic" are the errors of its enlarged condition.
    """

    def __init__(self, stage: str, folder: Path, table: Tensor, loss: LossSettings, *, count: int = HELD_OUT, **text):
        data = EmojiDataset(stage, folder)
        examples, boxes = zip(*map(data.shown, range(count)), strict=True)
        boxes = torch.stack(boxes)
        self.all = Windowed(HeldOut(examples, table, loss, **text), boxes)
        self.read = Windowed(HeldOut(examples, table, loss, log_snrs=WORD_LOG_SNRS, **text), boxes)
        named = (data.shown(number, named=(number + 1) % count)[0] for number in range(count))
        self.wrong = [example["prompt"] for example in named]  # pyright: ignore[reportTypedDictNotRequiredAccess]
        self.bicubic: dict[str, float] = {}
        if data.view.scale is not None:
            errors = torch.stack([enlarging_error(example) for example in examples])[None]
            self.bicubic = {"bicubic": errors.mean().item(), "thing/bicubic": self.all.around(errors).item()}

    def __call__(self, unet: ModelMixin) -> dict[str, float]:
        errors = self.all.data.errors(unet)
        right = dict(zip(self.all.data.log_snrs, self.all.around(errors), strict=True))
        figures = self.all.named("", errors.mean((1, 2, 3))) | self.all.named("thing/", torch.stack(list(right.values())))
        wrong = self.read.around(self.read.data.errors(unet, self.wrong))
        gained = wrong - torch.stack([right[level] for level in self.read.data.log_snrs])
        return figures | self.read.named("name/", gained) | self.bicubic
