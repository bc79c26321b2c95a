"""What a stage is looked at and measured by while it is trained."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.models.modeling_utils import ModelMixin
from PIL import Image
from torch import Tensor

from imagen_diffusers.images import labelled_grid, read_image
from imagen_diffusers.pipelines.cascade import Cascade
from imagen_diffusers.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline
from imagen_diffusers.pipelines.pipeline_imagen_cascade_upscale import ImagenCascadeUpscalePipeline
from imagen_diffusers.sampling.network import StageNetwork
from imagen_diffusers.text.prompts import TextRules
from imagen_diffusers.training.data_settings import DataSettings
from imagen_diffusers.training.image_datasets import HeldOutImages, ImageDataset
from imagen_diffusers.training.image_folders import check_folder
from imagen_diffusers.training.losses import LossSettings
from imagen_diffusers.training.processes import main_decides
from imagen_diffusers.training.pyramid import WindowSettings
from imagen_diffusers.training.run_settings import TrainSettings
from imagen_diffusers.training.validation import HeldOut

from .flags import StageValidationSettings
from .image_sets import image_set, network_of

logger = logging.getLogger(__name__)


def check_validation(network: StageNetwork, train: TrainSettings, settings: StageValidationSettings) -> None:
    """Refuse what would do nothing, by a `ValueError`."""
    asked = bool(settings.validation_prompts) or settings.validation_data is not None
    if asked and not train.validation_steps:
        raise ValueError(
            "validation_prompts and validation_data do nothing without validation_steps: say every how many steps, or leave them out"
        )
    if train.validation_steps and not asked:
        raise ValueError("validation_steps does nothing without validation_prompts or validation_data: give one, or leave it out")
    if settings.validation_prompts and network.cond_channels:
        raise ValueError(
            "validation_prompts alone do not make images here: this network is conditioned on images; leave them out, and give "
            "validation_data to measure the error"
        )
    if settings.validation_images and not (network.has_low_res and settings.validation_prompts):
        raise ValueError(
            "validation_images are enlarged by a super-resolution stage, one per prompt: give validation_prompts, or leave them out"
        )


def held_out(
    pipe: ImagenCascadePipeline,
    stage: int,
    log_snr_table: Tensor,
    settings: StageValidationSettings,
    train: TrainSettings,
    loss: LossSettings,
    *,
    data: DataSettings | None = None,
    crop: WindowSettings | None = None,
) -> HeldOut | None:
    """The error by noise level on the images of `validation_data`, whole and unmirrored, each with its caption; None where it names none.

    Images that cannot be used are left out, with a warning that names them. All processes call this together: the main one finds them,
    and each then reads those that it measures on.

    Args:
        data, crop: of the training set; None for the usual columns and the stage's own resolution.

    Raises:
        ValueError: where not one image can be used.
    """
    folder = settings.validation_data
    if folder is None:
        return None
    check_folder(folder, "validation_data")
    names = ("image_column", "caption_column", "conditioning_image_column", "cache_dir")
    columns = {} if data is None else {name: getattr(data, name) for name in names}
    whole = WindowSettings(resolution=None if crop is None else crop.resolution, center_crop=True)
    dataset = image_set(pipe, stage, DataSettings(train_data_dir=folder, **columns), whole)
    assert isinstance(dataset, ImageDataset)
    return HeldOut(
        HeldOutImages(dataset, main_decides(lambda: _usable(dataset, folder))),
        log_snr_table,
        loss,
        tokenizer=pipe.tokenizer,
        text_encoder=pipe.text_encoder,
        text_rules=TextRules.of(pipe.config),
        max_sequence_length=train.max_sequence_length,
        batch_size=train.train_batch_size,
    )


def _usable(dataset: ImageDataset, folder: Path) -> list[int]:
    found = dataset.usable()
    if not found:
        raise ValueError(f"none of the images of validation_data={folder} can be used: {'; '.join(dataset.unusable[:3])}")
    if dataset.unusable:
        logger.warning(f"{len(dataset.unusable)} images of validation_data={folder} are left out: {'; '.join(dataset.unusable)}")
    return found


def image_maker(
    pipe: ImagenCascadePipeline, stage: int, settings: StageValidationSettings, seed: int
) -> Callable[[ModelMixin], Image.Image] | None:
    """What generates the prompts by the stage alone, in one grid; None without prompts."""
    prompts = settings.validation_prompts
    if not prompts:
        return None
    images: list[Any] = [None] * len(prompts)
    if network_of(pipe, stage).has_low_res:
        if len(settings.validation_images) != len(prompts):
            raise ValueError(f"{len(prompts)} validation_prompts need as many validation_images to enlarge")
        images = [read_image(path) for path in settings.validation_images]

    def validate(_: ModelMixin) -> Image.Image:
        larger = ImagenCascadeUpscalePipeline.from_pipe(pipe)
        made = [
            generate_examples(pipe, [prompt], seed=seed + i, stop_at=stage)[0]
            if image is None
            else generate_examples(larger, [prompt], seed=seed + i, image=image, start_at=stage, stop_at=stage)[0]
            for i, (prompt, image) in enumerate(zip(prompts, images, strict=True))
        ]
        return labelled_grid(made, prompts)

    return validate


def generate_examples(pipe: Cascade, prompts: Sequence[str], *, seed: int = 0, **call: Any) -> list[Image.Image]:
    """One image per prompt, by seeds that count up."""
    generators = [torch.Generator().manual_seed(seed + i) for i in range(len(prompts))]
    return [pipe(p, generator=g, **call).images[0] for p, g in zip(prompts, generators, strict=True)]  # pyright: ignore
