"""A stage of a cascade, captioned images and a run, put together: what the scripts in `examples/` share.

It sits above pipelines and training alike; neither knows the other.
"""

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from diffusers.models.modeling_utils import ModelMixin
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from imagen_diffusers.hub.classes import PACKAGE, class_named
from imagen_diffusers.models.initialization import initialized_from
from imagen_diffusers.models.lora import add_lora
from imagen_diffusers.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline
from imagen_diffusers.pipelines.slots import UNETS
from imagen_diffusers.schedulers.noise import log_snr_table
from imagen_diffusers.text.encoders import encoding_dtype, load_tokenizer
from imagen_diffusers.text.prompts import TextRules
from imagen_diffusers.training.data_settings import DataSettings
from imagen_diffusers.training.loaders import TrainingSet
from imagen_diffusers.training.loop import train_stage
from imagen_diffusers.training.losses import LossSettings
from imagen_diffusers.training.processes import this_process
from imagen_diffusers.training.pyramid import WindowSettings
from imagen_diffusers.training.run_settings import TrainSettings
from imagen_diffusers.training.text_cache import TextCache

from .flags import ModelSettings, StageValidationSettings
from .image_sets import network_of
from .text_encoding import load_text_encoder, null_text, place_of, tokens_to_read
from .validating import check_validation, held_out, image_maker


def load_cascade(model: ModelSettings, *, seed: int = 0, text_encoder: bool = True, stage: int | None = None) -> ImagenCascadePipeline:
    """The pipeline on the process's device, its networks in float32, as training needs them, its text encoder in `text_encoder_dtype`.

    Args:
        model: which.
        seed: of fresh weights.
        text_encoder: whether to load it; a run on cached text may do without.
        stage: the one that is used; the others are there by their configurations alone, without weights. All by default.
    """
    name = place_of(model)
    device: Any = this_process().device
    given: dict[str, Any] = {"revision": model.revision, "variant": model.variant, "dtype": torch.float32}
    encodes_in = encoding_dtype(model.text_encoder_dtype, device)
    if encodes_in != torch.float32 and text_encoder:
        given["dtype"] = {"default": torch.float32, "text_encoder": encodes_in}
    if model.text_encoder is not None:
        given["tokenizer"] = load_tokenizer(model.text_encoder)
    if model.text_encoder is not None or not text_encoder:
        given["text_encoder"] = load_text_encoder(model, encodes_in) if text_encoder else None
    used = [slot for n, slot in enumerate(UNETS, start=1) if stage in (None, n)]
    with torch.device("meta"):
        described = {slot: _fresh_network(name, slot, model.revision) for slot in UNETS if slot not in used}
    fresh = used if model.from_scratch else []
    pipe = ImagenCascadePipeline.from_pretrained(name, **given, **described, **dict.fromkeys(fresh))
    with initialized_from(seed):
        for slot in fresh:
            setattr(pipe, slot, _fresh_network(name, slot, model.revision))
    for slot, component in pipe.components.items():
        if isinstance(component, torch.nn.Module) and slot not in described:
            component.to(device)
    return pipe


def save_cascade(pipe: ImagenCascadePipeline, model: ModelSettings, folder: Path, cache: TextCache | None = None) -> None:
    """The whole cascade in float32: a text encoder that captions were encoded by in bfloat16 is loaded once more for it.

    Args:
        pipe: as `load_cascade` loaded it, its networks trained since.
        cache: that text was read from, where `pipe` has no text encoder, which is then loaded for this.
    """
    own: Any = pipe.text_encoder
    if (own is None and cache is not None) or (own is not None and own.dtype != torch.float32):
        pipe.text_encoder = load_text_encoder(model)
    pipe.save_pretrained(folder)
    pipe.text_encoder = own


def stages_held(model: ModelSettings) -> list[int]:
    """The numbers of a cascade's stages, as its index says, before any weights are loaded."""
    index: Any = ImagenCascadePipeline.load_config(place_of(model), revision=model.revision)
    return [n for n in (1, 2, 3) if index.get(ImagenCascadePipeline.slots(n)[0], (None,))[0] is not None]


def noise_curve(scheduler: SchedulerMixin) -> Tensor:
    """The log-SNR table a stage is sampled with, from its scheduler, so that it is trained on no other."""
    return log_snr_table(scheduler.betas)  # pyright: ignore[reportAttributeAccessIssue]


def fit_stage(
    pipe: ImagenCascadePipeline,
    stage: int,
    dataset: TrainingSet,
    model: ModelSettings,
    train: TrainSettings,
    loss: LossSettings,
    validation: StageValidationSettings,
    *,
    data: DataSettings | None = None,
    crop: WindowSettings | None = None,
    cache: TextCache | None = None,
) -> bool:
    """Train one stage of `pipe` in place, on the noise, the prediction and the text it is sampled with.

    `train.output_dir` then holds the stage as a Hub-layout folder: its network, or its LoRA adapter, and its scheduler. All processes
    call this together; of a network trained in shards the main process's `pipe` then has the whole.

    Args:
        data, crop: as `dataset` was read: its columns and resolution are those of held-out images, too.
        cache: that `dataset` reads its text from, where `pipe` has no text encoder.

    Returns:
        Whether the stage is trained to its last step; otherwise the time limit came first.

    Raises:
        ValueError: for a stage the cascade does not hold in whole, a prediction type its weights were not trained for, fewer tokens than
            `tokens_to_read` allows, and settings of validation that would do nothing.
    """
    slot, scheduler_slot = pipe.slots(stage)
    network = network_of(pipe, stage)
    loss, scheduler = loss_of(pipe, stage, loss, from_scratch=model.from_scratch)
    rules = TextRules.of(pipe.config)
    check_validation(network, train, validation)
    train = replace(train, max_sequence_length=tokens_to_read(train.max_sequence_length, rules, cache))
    scheduler.register_to_config(prediction_type=loss.prediction_type)
    if model.rank is not None:
        add_lora(network.module, rank=model.rank, alpha=model.lora_alpha, dropout=model.lora_dropout, seed=train.seed)
    unet, finished = train_stage(
        network.module,
        dataset,
        noise_curve(scheduler),
        train,
        loss,
        tokenizer=pipe.tokenizer,
        text_encoder=pipe.text_encoder,
        text_rules=rules,
        null_text=None if network.text_dim is None else null_text(pipe, cache),
        validate=image_maker(pipe, stage, validation, train.seed),
        measure=held_out(pipe, stage, noise_curve(scheduler), validation, train, loss, data=data, crop=crop),
        stage=slot,
    )
    setattr(pipe, slot, unet.eval())
    if this_process().is_main_process:
        scheduler.save_pretrained(train.output_dir / scheduler_slot)
    return finished


def loss_of(pipe: ImagenCascadePipeline, stage: int, loss: LossSettings, *, from_scratch: bool = False) -> tuple[LossSettings, Any]:
    """What a stage predicts, by its scheduler where `loss` leaves it open, and this scheduler.

    Raises:
        ValueError: for a stage without one, and a prediction type that the stage's weights were not trained for.
    """
    slot = pipe.slots(stage)[1]
    scheduler = getattr(pipe, slot)
    if scheduler is None:
        raise ValueError(f"the cascade has no {slot}, which says how noise is added; assign one")
    says = scheduler.config["prediction_type"]
    if loss.prediction_type not in (None, says) and not from_scratch:
        raise ValueError(f"prediction_type={loss.prediction_type}, but {slot} of this checkpoint says {says}; leave it out")
    return replace(loss, prediction_type=loss.prediction_type or says), scheduler


def _fresh_network(name: str, slot: str, revision: str | None) -> ModelMixin | None:
    """The network a pipeline's folder describes, with fresh weights."""
    index: dict[str, Any] = ImagenCascadePipeline.load_config(name, revision=revision)  # pyright: ignore[reportAssignmentType]
    library, kind = index.get(slot, (None, None))
    if kind is None:
        return None
    network = class_named(kind) if library == PACKAGE else getattr(import_module(library), kind)
    return network.from_config(network.load_config(name, subfolder=slot, revision=revision))
