"""Train one stage of the emoji cascade; run it again to go on from the last checkpoint.

python -m examples.emoji.train --stage base --max_train_steps 20000 --output_dir runs/emoji/base --pretrained imagen-scenes

All flags of `TrainSettings` and `LossSettings` are there; their defaults here are the recipe of examples/scenes. With --pretrained every
weight of that pipeline's stage is begun with whose name and shape are the same, and the others are listed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch

from examples.scenes import train as scenes
from imagen_diffusers.finetuning.flags import parse, run_script
from imagen_diffusers.hub.places import find
from imagen_diffusers.models import configurations
from imagen_diffusers.models.conditioned_unet import ConditionedUNet
from imagen_diffusers.models.initialization import initialized_from
from imagen_diffusers.models.unet_imagen_efficient import ImagenEfficientUNet2DConditionModel
from imagen_diffusers.text.encoding import encode
from imagen_diffusers.training.loop import train_stage
from imagen_diffusers.training.run_settings import TrainSettings

from .data import VIEWS, EmojiDataset
from .validation import EmojiFigures

NETWORKS = {  # `build` sets the width of the text
    **{stage: scenes.NETWORKS[stage] for stage in ("base", "sr256")},
    "sr1024": (ImagenEfficientUNet2DConditionModel, configurations.EMOJI_SR1024),
}


@dataclass(frozen=True)
class EmojiSettings:
    """Which stage, and what it is trained on."""

    stage: Literal["base", "sr256", "sr1024"] = field(metadata={"help": "Which stage."})
    folder: Path = field(default=Path("runs/emoji"), metadata={"help": "Where examples.emoji.data put things and text encoder."})
    pretrained: Path | None = field(
        default=None, metadata={"help": "Pipeline, folder or name, whose weights of this stage are begun with where they fit."}
    )
    flattened: float | None = field(
        default=None,
        metadata={"help": "Share of the visits to a thing that may be trained in the flat style which show it so; by default the stage's."},
    )

    def __post_init__(self) -> None:
        if self.flattened is not None and not 0 <= self.flattened <= 1:
            raise ValueError(f"--flattened is a share, from 0 to 1, not {self.flattened}")


def build(stage: str, text_dim: int, pretrained: Path | None = None, *, seed: int = 0) -> ConditionedUNet:
    """A stage's network for text of a width, with new weights, which depend on the seed, and those of a pipeline where they fit.

    Raises:
        OSError: for a pipeline without such a stage.
    """
    network, config = NETWORKS[stage]
    with initialized_from(seed):
        unet = network(**{**config, "encoder_hid_dim": text_dim})
    if pretrained is not None:
        place = Path(find(str(pretrained), ("pipelines",)))
        if place.is_dir() and not (place / ("unet" + scenes.SUFFIXES[stage])).is_dir():
            raise OSError(f"{place} has no stage {stage} to begin with; leave --pretrained out, or name another pipeline")
        own, weights = unet.state_dict(), scenes.build(stage, pretrained).state_dict()
        fitting = {name: value for name, value in weights.items() if name in own and value.shape == own[name].shape}
        unet.load_state_dict(fitting, strict=False)
        print(f"of {pretrained}: {len(fitting)} of {len(own)} tensors; new: {', '.join(sorted(own.keys() - fitting.keys())) or 'none'}")
    return unet


def main(args: Sequence[str] | None = None) -> None:
    emoji, train, loss = parse(EmojiSettings, TrainSettings, scenes.SampleLossSettings, args=args, **scenes.RECIPE)
    loss, table = replace(loss, prediction_type="sample"), scenes.noise_curve(VIEWS[emoji.stage].log_snr_shift)
    dtype = torch.bfloat16 if train.mixed_precision == "bf16" else torch.float32  # half the time, and the encoder's is a tenth of a step's
    text = scenes.text_of(emoji.folder, f"examples.emoji.data --folder {emoji.folder}", dtype)
    measure = None
    if train.validation_steps:
        measure = EmojiFigures(emoji.stage, emoji.folder, table, loss, **text, max_sequence_length=train.max_sequence_length)
    text_dim = encode(["an emoji"], **text, max_length=train.max_sequence_length).embeds.shape[-1]  # not every config tells
    unet = build(emoji.stage, text_dim, emoji.pretrained, seed=train.seed)
    data = EmojiDataset(emoji.stage, emoji.folder, seed=train.seed, flattened=emoji.flattened)
    train_stage(unet, data, table, train, loss, **text, measure=measure)


if __name__ == "__main__":
    run_script(main)
