"""A stage of a cascade, captioned pictures and a run, put together: what the scripts in `examples/` share.

It sits above pipelines and training alike; neither knows the other.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer

from imagen_diffusers.hub.classes import class_named
from imagen_diffusers.images import labelled_grid
from imagen_diffusers.models.conditioned_unet import ConditionedUNet
from imagen_diffusers.models.initialization import initialized_from
from imagen_diffusers.models.lora import add_lora
from imagen_diffusers.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline
from imagen_diffusers.schedulers.noise import log_snr_table
from imagen_diffusers.text.prompts import TextRules
from imagen_diffusers.training.exact_stream import ImageStream
from imagen_diffusers.training.image_datasets import ImageDataset
from imagen_diffusers.training.loaders import TrainingSet
from imagen_diffusers.training.loop import train_stage
from imagen_diffusers.training.losses import LossSettings
from imagen_diffusers.training.processes import this_process
from imagen_diffusers.training.pyramid import ImageSettings, WindowSettings
from imagen_diffusers.training.rows import DataSettings, load_rows
from imagen_diffusers.training.run_settings import TrainSettings
from imagen_diffusers.training.sharded_stream import ShardedStream
from imagen_diffusers.training.text_cache import TextCache
from imagen_diffusers.training.validation import HeldOut

from .flags import ModelSettings, StageValidationSettings
from .text_encoding import load_text_encoder, null_text, place_of


def load_cascade(model: ModelSettings, *, seed: int = 0, text_encoder: bool = True) -> ImagenCascadePipeline:
    """The pipeline on the process's device, its networks in float32, as training needs them.

    Args:
        model: which.
        seed: of fresh weights.
        text_encoder: whether to load it; a run on cached text may do without.
    """
    name, variant = place_of(model)
    given: dict[str, Any] = {"revision": model.revision, "variant": variant, "dtype": torch.float32}
    if model.text_encoder is not None:
        given["tokenizer"] = AutoTokenizer.from_pretrained(model.text_encoder)
    if model.text_encoder is not None or not text_encoder:
        given["text_encoder"] = load_text_encoder(model) if text_encoder else None
    slots = [ImagenCascadePipeline.slots(n)[0] for n in (1, 2, 3)] if model.from_scratch else []
    pipe = ImagenCascadePipeline.from_pretrained(name, **given, **dict.fromkeys(slots))
    with initialized_from(seed):
        for slot in slots:
            setattr(pipe, slot, _fresh_network(name, slot, model.revision))
    return pipe.to(this_process().device)


def noise_curve(scheduler: SchedulerMixin) -> Tensor:
    """The log-SNR table a stage is sampled with, from its scheduler, so that it is trained on no other."""
    return log_snr_table(scheduler.betas)  # pyright: ignore[reportAttributeAccessIssue]


def picture_settings(pipe: ImagenCascadePipeline, stage: int, crop: WindowSettings) -> ImageSettings:
    """What pictures are made into for this stage."""
    unet = network_of(pipe, stage)
    resolution, scale = crop.resolution or unet.config["sample_size"], None
    if unet.has_low_res:
        before = [network_of(pipe, n).config["sample_size"] for n in pipe.stage_numbers if n < stage]
        scale = unet.config["sample_size"] // before[-1] if before else 4
    return ImageSettings(
        resolution, scale, crop.crop_size, crop.center_crop, crop.random_flip, crop.aspect_buckets, stride=max(unet.stride, scale or 1)
    )


def picture_set(
    pipe: ImagenCascadePipeline,
    stage: int,
    data: DataSettings,
    crop: WindowSettings,
    *,
    seed: int = 0,
    prompt: str | None = None,
    cache: TextCache | None = None,
) -> ImageDataset | ImageStream | ShardedStream:
    """Captioned images for this stage, or, with `prompt`, images that all have this caption; embedded where there is a `cache`."""
    captioned = prompt is None and network_of(pipe, stage).text_dim is not None
    rows, columns = load_rows(data, captions=captioned)
    embed = cache if captioned else None
    settings = picture_settings(pipe, stage, crop)
    if data.streaming:
        kind = ImageStream if data.exact_stream else ShardedStream
        return kind(rows, columns, settings, embed=embed, seed=seed, shuffle_buffer=data.shuffle_buffer)
    return ImageDataset(rows, columns, settings, embed=embed, prompt=prompt, seed=seed)


def fit_stage(
    pipe: ImagenCascadePipeline,
    stage: int,
    dataset: TrainingSet,
    model: ModelSettings,
    train: TrainSettings,
    loss: LossSettings,
    validation: StageValidationSettings,
    *,
    cache: TextCache | None = None,
) -> None:
    """Train one stage of `pipe` in place, on the noise, the prediction and the text it is sampled with.

    `train.output_dir` then holds the stage as a Hub-layout folder: its network, or its LoRA adapter, and its scheduler. All processes
    call this together; of a network trained in shards the main process's `pipe` then has the whole.

    Args:
        cache: that `dataset` reads its text from, where `pipe` has no text encoder.

    Raises:
        ValueError: for a stage the cascade does not hold in whole, or a prediction type its weights were not trained for.
    """
    slot, scheduler_slot = pipe.slots(stage)
    unet, scheduler = network_of(pipe, stage), getattr(pipe, scheduler_slot)
    if scheduler is None:
        raise ValueError(f"the cascade has no {scheduler_slot}, which says how noise is added; assign one")
    says = scheduler.config["prediction_type"]
    if loss.prediction_type not in (None, says) and not model.from_scratch:
        raise ValueError(f"prediction_type={loss.prediction_type}, but {scheduler_slot} of this checkpoint says {says}; leave it out")
    scheduler.register_to_config(prediction_type=loss.prediction_type or says)
    if model.rank is not None:
        add_lora(unet, rank=model.rank, alpha=model.lora_alpha, dropout=model.lora_dropout, seed=train.seed)
    trained = train_stage(
        unet,
        dataset,
        noise_curve(scheduler),
        replace(train, max_sequence_length=min(train.max_sequence_length, pipe.config["max_sequence_length"])),
        replace(loss, prediction_type=loss.prediction_type or says),
        tokenizer=pipe.tokenizer,
        text_encoder=pipe.text_encoder,
        text_rules=TextRules.of(pipe.config),
        null_text=None if unet.text_dim is None else null_text(pipe, cache),
        validate=_validator(pipe, stage, validation, train.seed),
        measure=_held_out(pipe, stage, validation, replace(loss, prediction_type=loss.prediction_type or says)),
        stage=slot,
    )
    setattr(pipe, slot, trained.eval())
    if this_process().is_main_process:
        scheduler.save_pretrained(train.output_dir / scheduler_slot)


def draw_examples(pipe: ImagenCascadePipeline, prompts: Sequence[str], *, seed: int = 0, **call: Any) -> list[Image.Image]:
    """One picture a prompt, by seeds that count up."""
    generators = [torch.Generator().manual_seed(seed + i) for i in range(len(prompts))]
    return [pipe(p, generator=g, **call).images[0] for p, g in zip(prompts, generators, strict=True)]  # pyright: ignore


def network_of(pipe: ImagenCascadePipeline, stage: int) -> ConditionedUNet:
    """Of a stage counted from 1; a `ValueError` where the cascade has no such stage, or one that cannot be trained here."""
    if stage not in pipe.stage_numbers:
        raise ValueError(f"stage {stage} is not there; this cascade holds the stages {pipe.stage_numbers}")
    unet = getattr(pipe, pipe.slots(stage)[0])
    if not isinstance(unet, ConditionedUNet):
        raise ValueError(f"stage {stage} is a {type(unet).__name__}; only networks of this package's own kinds are trained here")
    return unet


def _fresh_network(name: str, slot: str, revision: str | None) -> ConditionedUNet | None:
    """The network a pipeline's folder describes, with fresh weights."""
    index: dict[str, Any] = ImagenCascadePipeline.load_config(name, revision=revision)  # pyright: ignore[reportAssignmentType]
    kind = index.get(slot, (None, None))[1]
    if kind is None:
        return None
    network = class_named(kind)
    return network.from_config(network.load_config(name, subfolder=slot, revision=revision))


def _held_out(pipe: ImagenCascadePipeline, stage: int, settings: StageValidationSettings, loss: LossSettings) -> HeldOut | None:
    """The error by noise level on images that are not trained on, whole and unmirrored, each with its caption."""
    if settings.validation_data is None:
        return None
    dataset = picture_set(pipe, stage, DataSettings(train_data_dir=settings.validation_data), WindowSettings(center_crop=True))
    assert isinstance(dataset, ImageDataset)
    return HeldOut(
        [dataset[i] for i in range(len(dataset))],
        noise_curve(getattr(pipe, pipe.slots(stage)[1])),
        loss,
        tokenizer=pipe.tokenizer,
        text_encoder=pipe.text_encoder,
        text_rules=TextRules.of(pipe.config),
        max_sequence_length=pipe.config["max_sequence_length"],
    )


def _validator(
    pipe: ImagenCascadePipeline, stage: int, settings: StageValidationSettings, seed: int
) -> Callable[[ConditionedUNet], Image.Image] | None:
    prompts = settings.validation_prompts
    if not prompts:
        return None
    images: list[Any] = [None] * len(prompts)
    if network_of(pipe, stage).has_low_res:
        if len(settings.validation_images) != len(prompts):
            raise ValueError(f"{len(prompts)} validation_prompts need as many validation_images to enlarge")
        images = [Image.open(path).convert("RGB") for path in settings.validation_images]

    def validate(_: ConditionedUNet) -> Image.Image:
        start = None if images[0] is None else stage
        made = [
            draw_examples(pipe, [prompt], seed=seed + i, image=image, start_at=start, stop_at=stage)[0]
            for i, (prompt, image) in enumerate(zip(prompts, images, strict=True))
        ]
        return labelled_grid(made, prompts)

    return validate
