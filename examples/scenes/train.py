"""Train one stage of the bundled cascade; run it again to go on from the last checkpoint.

python -m examples.scenes.train --stage base --scenes 40000 --max_train_steps 6000 --output_dir runs/scenes/base

From weights that are there, for example the bundled ones: --pretrained imagen-scenes. All flags of `TrainSettings` and
`LossSettings` are there; their defaults here are the recipe of docs/training.md.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from imagen_diffusers.finetuning.flags import parse, run_script
from imagen_diffusers.hub.places import find
from imagen_diffusers.models import configurations
from imagen_diffusers.models.conditioned_unet import ConditionedUNet
from imagen_diffusers.models.fastest_dtype import fastest_dtype
from imagen_diffusers.models.initialization import initialized_from
from imagen_diffusers.models.unet_imagen import ImagenUNet2DConditionModel
from imagen_diffusers.models.unet_imagen_efficient import ImagenEfficientUNet2DConditionModel
from imagen_diffusers.schedulers.noise import beta_table, log_snr_table, shift_betas
from imagen_diffusers.text.encoders import load_text_encoder, load_tokenizer
from imagen_diffusers.training.loop import train_stage
from imagen_diffusers.training.losses import LossSettings
from imagen_diffusers.training.run_settings import TrainSettings

from .data import VIEWS, SceneDataset, TimeIsUp
from .device import device_type
from .validation import SceneFigures

NETWORKS = {
    "base": (ImagenUNet2DConditionModel, configurations.SCENES_BASE),
    "sr256": (ImagenEfficientUNet2DConditionModel, configurations.SCENES_SR256),
    "sr1024": (ImagenEfficientUNet2DConditionModel, configurations.SCENES_SR1024),
}
SUFFIXES = {"base": "", "sr256": "_2", "sr1024": "_3"}  # of its components in the pipeline

RECIPE = {
    "optimizer": "muon",
    "muon_learning_rate": 1.2e-3,
    "learning_rate": 5e-4,
    "adam_beta2": 0.99,
    "adam_weight_decay": 0.0,
    "lr_scheduler": "cosine",
    "lr_warmup_steps": 60,
    "train_batch_size": 64,
    "ema_decay": 0.9995,
    "mixed_precision": "bf16" if fastest_dtype(device_type()) == torch.bfloat16 else "no",
    "max_sequence_length": 48,  # the longest caption has 41 tokens
    "dataloader_num_workers": 1,
    "checkpoints_total_limit": 2,
    "resume_from_checkpoint": "latest",
    "weighting": "running",
    "time_sampling": "log_snr_normal",
    "max_noise_level": 150.0,  # beyond, little is left of a condition to enlarge
}


@dataclass(frozen=True)
class SceneSettings:
    """Which stage, and what it is trained on."""

    stage: Literal["base", "sr256", "sr1024"] = field(metadata={"help": "Which stage."})
    scenes: int = field(metadata={"help": "How many scenes to render and train on."})
    pretrained: Path | None = field(
        default=None, metadata={"help": "Pipeline, folder or name, whose weights of this stage are trained on."}
    )
    pipeline: Path = field(default=Path("pipelines/imagen-scenes"), metadata={"help": "Where text_encoder/ and tokenizer/ are."})
    folder: Path = field(default=Path("runs/scenes"), metadata={"help": "Where renders are kept."})


@dataclass(frozen=True)
class SampleLossSettings(LossSettings):
    """The loss of stages that predict the clean image, as all of this cascade do."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prediction_type not in (None, "sample"):
            raise ValueError(f'prediction_type is "{self.prediction_type}"; stages of this cascade predict the sample: leave it out')


def build(stage: str, pretrained: Path | None = None, *, seed: int = 0) -> ConditionedUNet:
    """A stage's network with new weights, which depend on the seed, or in float32 with those of a pipeline folder."""
    network, config = NETWORKS[stage]
    if pretrained is None:
        with initialized_from(seed):
            return network(**config)
    subfolder = "unet" + SUFFIXES[stage]
    return network.from_pretrained(find(str(pretrained), ("pipelines",)), subfolder=subfolder, dtype=torch.float32)


def noise_curve(log_snr_shift: float) -> torch.Tensor:
    return log_snr_table(shift_betas(beta_table("squaredcos_cap_v2"), log_snr_shift))


def text_of(folder: Path, command: str, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Tokenizer and text encoder of a folder, as training and pipelines take them.

    Raises:
        OSError: where one is not there, naming the `command` that writes it; its name would be asked for on the Hub.
    """
    for part in ("tokenizer", "text_encoder"):
        if not (folder / part).is_dir():
            raise OSError(f"{folder / part} is not there; `python -m {command}` puts it there")
    encoder = load_text_encoder(folder / "text_encoder", variant="fp16", dtype=dtype)
    return {"tokenizer": load_tokenizer(folder / "tokenizer"), "text_encoder": encoder}


def main(args: Sequence[str] | None = None) -> None:
    scenes, train, loss = parse(SceneSettings, TrainSettings, SampleLossSettings, args=args, **RECIPE)
    until = time.monotonic() + train.time_limit
    loss, table = replace(loss, prediction_type="sample"), noise_curve(VIEWS[scenes.stage].log_snr_shift)
    text = text_of(scenes.pipeline, f"examples.scenes.train_text_encoder --output_dir {scenes.pipeline}")
    measure = None
    if train.validation_steps:
        measure = SceneFigures(scenes.stage, scenes.folder, table, loss, **text, max_sequence_length=train.max_sequence_length)
    try:
        dataset = SceneDataset(scenes.stage, scenes.scenes, scenes.folder, seed=train.seed, until=until)
    except TimeIsUp as told:
        print(told)
        return
    train = replace(train, time_limit=max(until - time.monotonic(), 0.0))
    train_stage(build(scenes.stage, scenes.pretrained, seed=train.seed), dataset, table, train, loss, **text, measure=measure)


if __name__ == "__main__":
    run_script(main)
