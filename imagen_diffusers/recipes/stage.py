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
from torch.utils.data import Dataset
from transformers import AutoTokenizer, T5EncoderModel

from imagen_diffusers.hub import find
from imagen_diffusers.models.lora import add_lora
from imagen_diffusers.models.unet import ConditionedUNet
from imagen_diffusers.pictures import labelled_grid
from imagen_diffusers.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline
from imagen_diffusers.schedulers.noise import log_snr_table
from imagen_diffusers.text.t5 import TextEmbedding, encode
from imagen_diffusers.training.datasets import DataSettings, PictureDataset, PictureStream, load_rows
from imagen_diffusers.training.loop import train_stage
from imagen_diffusers.training.losses import LossSettings
from imagen_diffusers.training.pyramid import PictureSettings, WindowSettings
from imagen_diffusers.training.settings import TrainSettings
from imagen_diffusers.training.text_cache import TextCache, fingerprint
from imagen_diffusers.training.validation import HeldOut

from .settings import ModelSettings, StageValidationSettings


def load_cascade(model: ModelSettings) -> ImagenCascadePipeline:
    """The pipeline with its networks in float32, as training needs them."""
    name = find(model.pretrained_model_name_or_path, ("pipelines",))
    given: dict[str, Any] = {"revision": model.revision, "variant": model.variant, "dtype": torch.float32}
    if model.text_encoder is not None:
        given["tokenizer"] = AutoTokenizer.from_pretrained(model.text_encoder)
        given["text_encoder"] = T5EncoderModel.from_pretrained(model.text_encoder)
    if not model.from_scratch:
        return ImagenCascadePipeline.from_pretrained(name, **given)
    slots = [ImagenCascadePipeline.slots(n)[0] for n in (1, 2, 3)]
    pipe = ImagenCascadePipeline.from_pretrained(name, **given, **dict.fromkeys(slots))
    for slot in slots:
        setattr(pipe, slot, _fresh_network(name, slot, model.revision))
    return pipe


def noise_curve(scheduler: SchedulerMixin) -> Tensor:
    """The log-SNR table a stage is sampled with, from its scheduler, so that it is trained on no other."""
    return log_snr_table(scheduler.betas)  # pyright: ignore[reportAttributeAccessIssue]


def null_text(pipe: ImagenCascadePipeline) -> TextEmbedding | None:
    """What stands for no text in this checkpoint; None for zeros."""
    if pipe.config["null_text"] == "zeros" or pipe.text_encoder is None:
        return None
    return encode([""], pipe.tokenizer, pipe.text_encoder, pipe.config["max_sequence_length"])


def picture_settings(pipe: ImagenCascadePipeline, stage: int, crop: WindowSettings) -> PictureSettings:
    """What pictures are made into for this stage."""
    unet = network_of(pipe, stage)
    resolution, scale = crop.resolution or unet.config["sample_size"], None
    if unet.has_low_res:
        before = [network_of(pipe, n).config["sample_size"] for n in pipe.stage_numbers if n < stage]
        scale = unet.config["sample_size"] // before[-1] if before else 4
    return PictureSettings(
        resolution, scale, crop.crop_size, crop.center_crop, crop.random_flip, crop.aspect_buckets, stride=max(unet.stride, scale or 1)
    )


def picture_set(
    pipe: ImagenCascadePipeline, stage: int, data: DataSettings, crop: WindowSettings, *, seed: int = 0, prompt: str | None = None
) -> PictureDataset | PictureStream:
    """Captioned pictures for this stage, or, with `prompt`, pictures that all have this caption."""
    captioned = prompt is None and network_of(pipe, stage).text_dim is not None
    rows, columns = load_rows(data, captions=captioned)
    embed = None
    if data.text_cache is not None and captioned:
        embed = TextCache(data.text_cache, fingerprint(pipe.tokenizer, pipe.text_encoder, pipe.config["max_sequence_length"]))
    settings = picture_settings(pipe, stage, crop)
    if data.streaming:
        return PictureStream(rows, columns, settings, embed=embed, seed=seed, shuffle_buffer=data.shuffle_buffer)
    return PictureDataset(rows, columns, settings, embed=embed, prompt=prompt, seed=seed)


def fit_stage(
    pipe: ImagenCascadePipeline,
    stage: int,
    dataset: Dataset | PictureStream,
    model: ModelSettings,
    train: TrainSettings,
    loss: LossSettings,
    validation: StageValidationSettings,
) -> None:
    """Train one stage of `pipe` in place, on the noise and the prediction its scheduler is set to.

    `train.output_dir` then holds the stage as a Hub-layout folder: its network, or its LoRA adapter, and its scheduler.

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
        add_lora(unet, rank=model.rank, alpha=model.lora_alpha, dropout=model.lora_dropout)
    train_stage(
        unet,
        dataset,
        noise_curve(scheduler),
        replace(train, max_sequence_length=min(train.max_sequence_length, pipe.config["max_sequence_length"])),
        replace(loss, prediction_type=loss.prediction_type or says),
        tokenizer=pipe.tokenizer,
        text_encoder=pipe.text_encoder,
        null_text=null_text(pipe),
        validate=_validator(pipe, stage, validation, train.seed),
        measure=_held_out(pipe, stage, validation, replace(loss, prediction_type=loss.prediction_type or says)),
        stage=slot,
    )
    unet.eval()
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
    import imagen_diffusers

    index: dict[str, Any] = ImagenCascadePipeline.load_config(name, revision=revision)  # pyright: ignore[reportAssignmentType]
    kind = index.get(slot, (None, None))[1]
    if kind is None:
        return None
    network = getattr(imagen_diffusers, kind)
    return network.from_config(network.load_config(name, subfolder=slot, revision=revision))


def _held_out(pipe: ImagenCascadePipeline, stage: int, settings: StageValidationSettings, loss: LossSettings) -> HeldOut | None:
    """The error by noise level on images that are not trained on, whole and unmirrored, each with its caption."""
    if settings.validation_data is None:
        return None
    dataset = picture_set(pipe, stage, DataSettings(train_data_dir=settings.validation_data), WindowSettings(center_crop=True))
    assert isinstance(dataset, PictureDataset)
    return HeldOut(
        [dataset[i] for i in range(len(dataset))],
        noise_curve(getattr(pipe, pipe.slots(stage)[1])),
        loss,
        tokenizer=pipe.tokenizer,
        text_encoder=pipe.text_encoder,
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
