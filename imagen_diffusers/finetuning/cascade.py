"""Several stages fine-tuned one after the other, from the command line to the shared result."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from imagen_diffusers.hub.training_card import write_card
from imagen_diffusers.hub.upload import HubSettings
from imagen_diffusers.images import labelled_grid
from imagen_diffusers.models.lora import lora_layers, lora_metadata
from imagen_diffusers.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline
from imagen_diffusers.text.words import warn_of_unknown_words
from imagen_diffusers.training.checkpoints import GO_ON, LATEST
from imagen_diffusers.training.data_settings import DataSettings
from imagen_diffusers.training.folders import one_run_in
from imagen_diffusers.training.loaders import TrainingSet, first_usable
from imagen_diffusers.training.losses import DistillationSettings, LossSettings
from imagen_diffusers.training.processes import as_main_says, process_group, this_process
from imagen_diffusers.training.pyramid import CropSettings, WindowSettings
from imagen_diffusers.training.text_cache import TextCache

from .beginning import check_beginning
from .distilling import sample_without_guidance
from .flags import ModelSettings, StagesSettings, StagesTrainSettings, StageValidationSettings, ValidationSettings, parse
from .image_sets import image_set, image_settings, network_of
from .one_stage import fit_stage, load_cascade, save_cascade, stages_held
from .sharing import say_written
from .text_encoding import needs_text_encoder, open_text_cache
from .validating import generate_examples

Images = Callable[[int, WindowSettings], TrainingSet]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FineTuning:
    """What a script that trains several stages was told.

    Args:
        which: the stages; those that the cascade holds, where none are chosen, are known after `with_stages_held`.
        model, crop, train, loss, validation, hub: its other settings.
        told: all of them, and others, for the card.
        distilled: the guidance scales that adapters learn, by stage, in place of images; see `training/distillation.py`.
        begun: when, by `time.monotonic`; the time limit counts from here.

    Raises:
        ValueError: for several stages, once they are known, and what is of one: a resolution, a checkpoint by its name, and a learning rate
            by the clock, which would give each of them all the time that is left.
    """

    which: StagesSettings
    model: ModelSettings
    crop: CropSettings
    train: StagesTrainSettings
    loss: LossSettings
    validation: ValidationSettings
    hub: HubSettings
    told: list[Any]
    distilled: Mapping[int, float] = field(default_factory=dict)
    begun: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        if self.which.stages is None or len(self.which.stages) == 1:
            return
        if self.crop.resolution is not None:
            raise ValueError(
                f"resolution is {self.crop.resolution}, and each stage is sampled at a size of its own: leave it out, or name the one "
                "stage that it is for (--stages 1)"
            )
        if self.train.resume_from_checkpoint not in (None, LATEST):
            raise ValueError(
                f"resume_from_checkpoint={self.train.resume_from_checkpoint} is of one stage, and several are trained: name its stage "
                f"(--stages 1), or go on with all of them by --resume_from_checkpoint {LATEST}"
            )
        if self.train.lr_by_time:
            raise ValueError(
                "lr_by_time gives one stage all the time that there is: name the one that is to be trained (--stages 1, then 2), "
                "and the time that it may have"
            )

    @property
    def stages(self) -> list[int]:
        """Those that are trained or, as long as it is open which there are, those that may be."""
        return self.which.stages or [1, 2, 3]

    @property
    def folders(self) -> list[Path]:
        """Of the stages' runs."""
        return [self.train.output_dir / f"stage-{stage}" for stage in self.stages]

    def loss_of(self, stage: int) -> LossSettings:
        """What a stage is trained by."""
        scale = self.distilled.get(stage)
        return self.loss if scale is None else DistillationSettings(**asdict(self.loss), distilled_guidance=scale)

    @property
    def time_left(self) -> float:
        """In seconds, as the main process counts."""
        return as_main_says(self.begun + self.train.time_limit - time.monotonic())


def with_stages_held(job: FineTuning) -> FineTuning:
    """The same of all stages that the cascade holds, where none were chosen."""
    return job if job.which.stages is not None else with_stages(job, stages_held(job.model))


def with_stages(job: FineTuning, stages: list[int]) -> FineTuning:
    """The same of these stages."""
    which = replace(job.which, stages=stages)
    return replace(job, which=which, told=[which if settings is job.which else settings for settings in job.told])


def fine_tune(args: Sequence[str] | None, **defaults: Any) -> None:
    """A script: fine-tune a cascade on captioned images, by LoRA or in whole.

    Args:
        args: in place of the command line.
        defaults: of the script's flags.
    """
    kinds = (StagesSettings, ModelSettings, DataSettings, CropSettings, StagesTrainSettings, LossSettings, ValidationSettings, HubSettings)
    settings = parse(*kinds, args=args, **defaults)
    which, model, data, crop, train, loss, validation, hub = settings
    job = FineTuning(which, model, crop, train, loss, validation, hub, list(settings))
    with process_group():
        check_beginning(train, hub, job.folders, train_data_dir=data.train_data_dir)
        job = with_stages_held(job)
        pipe = load_cascade(model, seed=train.seed, text_encoder=needs_text_encoder(data, validation))
        cache = open_text_cache(pipe, model, data)

        def images(stage: int, crop: WindowSettings) -> TrainingSet:
            return image_set(pipe, stage, data, crop, seed=train.seed, cache=cache)

        fit_and_share(pipe, images, job, cache)


def fit_and_share(pipe: ImagenCascadePipeline, images: Images, job: FineTuning, cache: TextCache | None = None) -> None:
    """Train the stages, generate the prompts before and after, save the result with its card in `output_dir`, and upload it if asked.

    All processes call this together; the main one alone generates, writes and uploads. Where the time limit comes first there are
    checkpoints to go on from, and no result.

    Args:
        images: the training set of a stage, cut as `WindowSettings` say.
        cache: that the training sets read their text from, where `pipe` has no text encoder.
    """
    folder, prompts, seed = job.train.output_dir, job.validation.validation_prompts, job.train.seed
    with process_group() as processes, one_run_in(folder):
        main = processes.is_main_process
        before = generate_examples(pipe, prompts, seed=seed) if main else []
        finished = fit_stages(pipe, images, job, cache)
        if main and finished:
            _share(pipe, before, job)
        elif main:
            logger.warning(f"the time limit was reached before the last step; {folder} holds checkpoints to go on from: {GO_ON}")
        processes.wait_for_everyone()


def _share(pipe: ImagenCascadePipeline, before: list[Image.Image], job: FineTuning) -> None:
    """The images before and after, the card and the upload."""
    folder, prompts = job.train.output_dir, job.validation.validation_prompts
    image = "before_and_after.png" if prompts else None
    if image is not None:
        before_and_after(before, generate_examples(pipe, prompts, seed=job.train.seed), prompts, folder / image)
    slots = [pipe.slots(n)[0] for n in job.stages]
    write_card(
        folder,
        "adapter" if job.model.rank else "cascade",
        base=job.model.pretrained_model_name_or_path,
        slots=slots,
        network=type(getattr(pipe, slots[0])).__name__,
        settings=job.told,
        repo=job.hub.hub_model_id or str(folder),
        image=image,
        guidance_scale=list(pipe.config["guidance_scale"]) if job.distilled else None,
    )
    say_written(folder, job.hub)


def _first_captions(datasets: Mapping[int, TrainingSet], stage: int) -> list[str | None]:
    """Of what a stage is trained on; a `ValueError` where no image is, which says how to go on without this stage."""
    try:
        return [example.get("prompt") for example in first_usable(datasets[stage])]
    except ValueError as error:
        others = " ".join(str(other) for other in datasets if other != stage)
        raise ValueError(f"{error}; to train the others without stage {stage}, give --stages {others}" if others else str(error)) from None


def fit_stages(pipe: ImagenCascadePipeline, images: Images, job: FineTuning, cache: TextCache | None = None) -> bool:
    """Train stages of `pipe` one after the other, each in `output_dir/stage-N`, then save the result in `output_dir`.

    The result is one LoRA file for all stages, or, trained in whole, the cascade. That every stage has images to train on is seen before
    the first one begins, and words of their first captions that the text encoder never saw are said.

    Args:
        images, cache: as for `fit_and_share`.

    Returns:
        Whether all stages are trained to their last step; otherwise the time limit came first, and nothing is saved.
    """
    datasets = {stage: images(stage, _windows(pipe, stage, job)) for stage in job.stages}
    captions = dict.fromkeys(caption for stage in datasets for caption in _first_captions(datasets, stage))
    if pipe.tokenizer is not None and this_process().is_main_process:
        warn_of_unknown_words([caption for caption in captions if caption is not None], pipe.tokenizer)
    for stage, folder in zip(job.stages, job.folders, strict=True):
        left = job.time_left
        if left <= 0:
            return False
        own = replace(job.train, output_dir=folder, time_limit=left)
        loss = job.loss_of(stage)
        if not fit_stage(pipe, stage, datasets.pop(stage), job.model, own, loss, StageValidationSettings(), cache=cache):
            return False
        if stage in job.distilled:
            sample_without_guidance(pipe, stage)
    if this_process().is_main_process:
        _save(pipe, job, cache)
    return True


def _windows(pipe: ImagenCascadePipeline, stage: int, job: FineTuning) -> WindowSettings:
    """How a stage's images are cut: those of super-resolution stages to windows."""
    whole = WindowSettings(**asdict(job.crop))
    if not network_of(pipe, stage).has_low_res:
        return whole
    return replace(whole, crop_size=min(job.which.sr_crop_size, image_settings(pipe, stage, whole).shortest_side))


def _save(pipe: ImagenCascadePipeline, job: FineTuning, cache: TextCache | None) -> None:
    if job.model.rank is None:
        save_cascade(pipe, job.model, job.train.output_dir, cache)
        return
    slots = [pipe.slots(stage)[0] for stage in job.stages]
    given: dict[str, Any] = {f"{slot}_lora_layers": lora_layers(getattr(pipe, slot)) for slot in slots}
    given |= {f"{slot}_lora_adapter_metadata": lora_metadata(getattr(pipe, slot)) for slot in slots}
    pipe.save_lora_weights(job.train.output_dir, **given)


def before_and_after(before: Sequence[Image.Image], after: Sequence[Image.Image], prompts: Sequence[str], path: Path) -> None:
    """One grid, a row each, as people compare them."""
    labels = [*(f"before: {p}" for p in prompts), *(f"after: {p}" for p in prompts)]
    path.parent.mkdir(parents=True, exist_ok=True)
    labelled_grid([*before, *after], labels, columns=len(prompts)).save(path)
