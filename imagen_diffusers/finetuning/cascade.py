"""Several stages fine-tuned one after the other, from the command line to the shared result."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from PIL import Image

from imagen_diffusers.hub.training_card import write_card
from imagen_diffusers.hub.upload import HubSettings, push_folder
from imagen_diffusers.images import labelled_grid
from imagen_diffusers.models.lora import lora_layers, lora_metadata
from imagen_diffusers.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline
from imagen_diffusers.training.folders import one_run_in
from imagen_diffusers.training.loaders import TrainingSet
from imagen_diffusers.training.losses import LossSettings
from imagen_diffusers.training.processes import process_group, this_process
from imagen_diffusers.training.pyramid import CropSettings, WindowSettings
from imagen_diffusers.training.rows import DataSettings
from imagen_diffusers.training.run_settings import TrainSettings
from imagen_diffusers.training.text_cache import TextCache

from .flags import ModelSettings, StagesSettings, StageValidationSettings, ValidationSettings, parse
from .one_stage import draw_examples, fit_stage, load_cascade, network_of, picture_set, picture_settings
from .text_encoding import load_text_encoder, needs_text_encoder, open_text_cache

Pictures = Callable[[int, WindowSettings], TrainingSet]


def fine_tune(args: Sequence[str] | None, **defaults: Any) -> None:
    """A script: fine-tune a cascade on captioned pictures, by LoRA or in whole.

    Args:
        args: in place of the command line.
        defaults: of the script's flags.
    """
    kinds = (StagesSettings, ModelSettings, DataSettings, CropSettings, TrainSettings, LossSettings, ValidationSettings, HubSettings)
    settings = parse(*kinds, args=args, **defaults)
    which, model, data, crop, train, loss, validation, hub = settings
    with process_group():
        pipe = load_cascade(model, seed=train.seed, text_encoder=needs_text_encoder(data, validation))
        cache = open_text_cache(pipe, model, data)

        def pictures(stage: int, crop: WindowSettings) -> TrainingSet:
            return picture_set(pipe, stage, data, crop, seed=train.seed, cache=cache)

        fit_and_share(pipe, pictures, which, crop, model, train, loss, validation.validation_prompts, hub, list(settings), cache)


def fit_and_share(
    pipe: ImagenCascadePipeline,
    pictures: Pictures,
    which: StagesSettings,
    crop: CropSettings,
    model: ModelSettings,
    train: TrainSettings,
    loss: LossSettings,
    prompts: Sequence[str],
    hub: HubSettings,
    told: list[Any],
    cache: TextCache | None = None,
) -> None:
    """Train the stages, generate `prompts` before and after, save the result with its card in `train.output_dir`, and upload it if asked.

    All processes call this together; the main one alone generates, writes and uploads.

    Args:
        pictures: the training set of a stage, cut as `WindowSettings` say.
        told: all settings, for the card.
        cache: that the training sets read their text from, where `pipe` has no text encoder.
    """
    with process_group() as processes, one_run_in(train.output_dir):
        main = processes.is_main_process
        before = draw_examples(pipe, prompts, seed=train.seed) if main else []
        fit_stages(pipe, pictures, which, crop, model, train, loss, cache)
        if main:
            _share(pipe, before, which, model, train, prompts, hub, told)
        processes.wait_for_everyone()


def _share(
    pipe: ImagenCascadePipeline,
    before: list[Image.Image],
    which: StagesSettings,
    model: ModelSettings,
    train: TrainSettings,
    prompts: Sequence[str],
    hub: HubSettings,
    told: list[Any],
) -> None:
    """The images before and after, the card and the upload."""
    picture = "before_and_after.png" if prompts else None
    if picture is not None:
        before_and_after(before, draw_examples(pipe, prompts, seed=train.seed), prompts, train.output_dir / picture)
    slots = [pipe.slots(n)[0] for n in which.stages]
    write_card(
        train.output_dir,
        "adapter" if model.rank else "cascade",
        base=model.pretrained_model_name_or_path,
        slots=slots,
        network=type(getattr(pipe, slots[0])).__name__,
        settings=told,
        repo=hub.hub_model_id or str(train.output_dir),
        picture=picture,
    )
    if hub.push_to_hub:
        print(push_folder(train.output_dir, hub))


def fit_stages(
    pipe: ImagenCascadePipeline,
    pictures: Pictures,
    which: StagesSettings,
    crop: CropSettings,
    model: ModelSettings,
    train: TrainSettings,
    loss: LossSettings,
    cache: TextCache | None = None,
) -> None:
    """Train stages of `pipe` one after the other, each in `train.output_dir/stage-N`, then save the result in `train.output_dir`.

    The result is one LoRA file for all stages, or, trained in whole, the cascade.

    Args:
        pictures: the training set of a stage, cut as its `WindowSettings` say.
    """
    for stage in which.stages:
        unet = network_of(pipe, stage)
        whole = picture_settings(pipe, stage, WindowSettings(**asdict(crop)))
        window = min(which.sr_crop_size, whole.shortest_side) if unet.has_low_res else None
        dataset = pictures(stage, WindowSettings(**asdict(crop), crop_size=window))
        own = replace(train, output_dir=train.output_dir / f"stage-{stage}")
        fit_stage(pipe, stage, dataset, model, own, loss, StageValidationSettings(), cache=cache)
    if not this_process().is_main_process:
        return
    if model.rank is None:
        if cache is not None and pipe.text_encoder is None:
            pipe.text_encoder = load_text_encoder(model)  # the cascade is saved in whole
        pipe.save_pretrained(train.output_dir)
        return
    slots = [pipe.slots(stage)[0] for stage in which.stages]
    given: dict[str, Any] = {f"{slot}_lora_layers": lora_layers(getattr(pipe, slot)) for slot in slots}
    given |= {f"{slot}_lora_adapter_metadata": lora_metadata(getattr(pipe, slot)) for slot in slots}
    pipe.save_lora_weights(train.output_dir, **given)


def before_and_after(before: Sequence[Image.Image], after: Sequence[Image.Image], prompts: Sequence[str], path: Path) -> None:
    """One grid, a row each, as people compare them."""
    labels = [*(f"before: {p}" for p in prompts), *(f"after: {p}" for p in prompts)]
    path.parent.mkdir(parents=True, exist_ok=True)
    labelled_grid([*before, *after], labels, columns=len(prompts)).save(path)
