"""A request worked on: the cascade is called for one image after the other, and each step and each finished stage is told."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from imagen_diffusers.hub.classes import class_named
from imagen_diffusers.pipelines.arguments import one_each
from imagen_diffusers.text.words import unknown_words

from .asked import Asked
from .gallery import Gallery
from .limits import Limits
from .models import Models
from .worker import Tell

EDIT, INPAINT = "ImagenCascadeImg2ImgPipeline", "ImagenCascadeInpaintPipeline"
PIPELINES = {"generate": "ImagenCascadePipeline", "edit": EDIT, "enlarge": "ImagenCascadeUpscalePipeline"}


@dataclass(frozen=True)
class Step:
    """A step was made.

    Args:
        done, total: steps of the whole request, all its images counted.
        width: of the images that the running stage makes.
    """

    done: int
    total: int
    width: int


@dataclass(frozen=True)
class StageImage:
    """A stage is finished.

    Args:
        path: of its image, a PNG with its settings.
        width: of it.
        first, last: whether an image begins with it, and whether it is the one that was asked for.
    """

    path: Path
    width: int
    first: bool
    last: bool


@dataclass(frozen=True)
class UnknownWords:
    """Words of the prompt that the text encoder never saw."""

    words: list[str]


@dataclass
class Sampler:
    """What works on requests, within `limits`; `told` are settings of the server that go into every image's metadata."""

    models: Models
    gallery: Gallery
    limits: Limits
    told: Mapping[str, Any] = field(default_factory=dict)

    def sample(self, asked: Asked, tell: Tell, stopped: threading.Event) -> None:
        """Tell of a request's steps and images until it is done, or `stopped`.

        Raises:
            ValueError: for what does not fit the cascade.
        """
        loaded = self.models.get(asked.model, asked.weights)
        task = INPAINT if asked.mask is not None else PIPELINES[asked.task]
        pipe = class_named(task).from_pipe(loaded)  # of this request alone: the preset and the callbacks stay in it
        if asked.preset is not None:
            pipe.use_preset(asked.preset)
        call = self._call(pipe, asked)
        if "prompt" in call and pipe.tokenizer is not None and (words := unknown_words(asked.prompt, pipe.tokenizer)):
            tell(UnknownWords(words))
        said = {name: value for name, value in call.items() if name not in ("image", "mask_image", "prompt")}
        lora = [f"{name}:{weight:g}" for name, weight in asked.weights.items() if weight]
        settings = {"task": task, **self.told, "model": asked.model, "preset": asked.preset, "lora": lora or None, **said}
        for index in range(asked.count):
            if stopped.is_set():
                return
            seed = asked.seed + index
            at_work = _AtWork(self.gallery, {**settings, "prompt": asked.prompt or None, "seed": seed}, index, asked.count, tell, stopped)
            generator = torch.Generator().manual_seed(seed)
            try:
                pipe(**call, generator=generator, callback_on_step_end=at_work.after_step, callback_on_stage_end=at_work.after_stage)
            finally:
                loaded.maybe_free_model_hooks()  # offload is its own, and not of the pipelines made from it

    def _call(self, pipe: Any, asked: Asked) -> dict[str, Any]:
        """Arguments of the pipeline's call."""
        call: dict[str, Any] = {}
        if asked.prompt and pipe.takes_text:
            call["prompt"] = asked.prompt
        if asked.guidance is not None and asked.task != "enlarge":
            first, *others = pipe.stage_numbers
            call["guidance_scale"] = [asked.guidance, *(one_each("guidance_scale", None, pipe.config, others) if others else [])]
        if asked.image is not None:
            call["image"] = self.gallery.read("the image", asked.image)
        if asked.task == "enlarge":
            width, height = (round(side * asked.scale) for side in call["image"].size)
            if max(width, height) > self.limits.result_side:
                raise ValueError(
                    f"the image would become {width}x{height}, and results have at most {self.limits.result_side} pixels a side; choose a "
                    "smaller factor, or a smaller image"
                )
            call["scale"] = asked.scale
        if asked.mask is not None:
            call["mask_image"] = self.gallery.read("the mask", asked.mask)
        elif asked.task == "edit":
            call["strength"] = asked.strength
        return call


@dataclass
class _AtWork:
    """The callbacks of one call, for image number `index` of `count`."""

    gallery: Gallery
    settings: dict[str, Any]
    index: int
    count: int
    tell: Tell
    stopped: threading.Event
    finished: int = 0  # stages

    def after_step(self, pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        pipe.interrupt = self.stopped.is_set()
        total = pipe.num_timesteps
        self.tell(Step(self.index * total + step + 1, self.count * total, tensors["latents"].shape[-1]))
        return {}

    def after_stage(self, pipe: Any, number: int, images: Any) -> None:
        self.finished += 1
        last = number == pipe.running_stages[-1]
        path = self.gallery.keep(images[0], self.settings if last else self._as_far_as(pipe, number))
        self.tell(StageImage(path, images[0].width, first=self.finished == 1, last=last))

    def _as_far_as(self, pipe: Any, number: int) -> dict[str, Any]:
        """The settings by which a stage's image is made again alone."""
        settings = {**self.settings, "stop_at": number}
        if "guidance_scale" in settings:
            settings["guidance_scale"] = settings["guidance_scale"][: self.finished]
        if "scale" in settings:  # of the last stage that runs
            side, last_side = (pipe.networks[n].sample_size for n in (number, pipe.running_stages[-1]))
            settings["scale"] *= side / last_side
        return settings
