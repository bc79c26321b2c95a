"""A cascade's components, and the one way to run them; every task's pipeline is a thin subclass (Imagen, section 2)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from imagen_diffusers.interop.deepfloyd import components as deepfloyd  # and interop itself, whose networks, too, can be stages
from imagen_diffusers.sampling.guidance import EVERYWHERE
from imagen_diffusers.sampling.path import Path
from imagen_diffusers.sampling.seeds import stage_generators
from imagen_diffusers.sampling.stage import Stage

from .arguments import (
    check_callback_inputs,
    check_count,
    check_output_type,
    noise_per_stage,
    one_per_prompt,
    prepare_cond_images,
)
from .callbacks import Callbacks, RunningCallMixin, tensors_of
from .config_checks import checked_config
from .folders import FolderPipeline
from .lora_loader import ImagenLoraLoaderMixin
from .lora_scales import warn_of_guidance_twice
from .offloading import OffloadingPipeline
from .output import ImagenCascadePipelineOutput
from .request import Request
from .runs import Plan, StageRun
from .safety import SafetyMixin
from .sizes import check_sides, plan_sizes, reference_size
from .slots import SLOTS
from .stage_numbers import (
    channels_of_images,
    check_starts_at_a_base,
    image_to_enlarge,
    numbers_that_enlarge,
    numbers_to_run,
)
from .stages import StagesMixin, check_swapped
from .texts import TextsMixin
from .textual_inversion import TextualInversionMixin


class Cascade(
    FolderPipeline,
    OffloadingPipeline,
    ImagenLoraLoaderMixin,
    TextualInversionMixin,
    StagesMixin,
    TextsMixin,
    RunningCallMixin,
    SafetyMixin,
):
    """A cascade of pixel diffusion models.

    Everything but the base is optional, and any component may be None: a base alone, a super-resolution stage alone, a
    pipeline that only encodes text.

    Args:
        tokenizer, text_encoder: a frozen encoder of transformers that returns `last_hidden_state`, T5 in the paper; None where
            embeddings are given.
        unet, scheduler: the base stage.
        unet_2, scheduler_2, unet_3, scheduler_3: the super-resolution stages.
        safety_checker, feature_extractor: what looks at finished images, as in DeepFloyd IF's pipelines: any function of `images`
            (N, H, W, C) in [0, 1] and `clip_input` (None without a feature extractor) that returns the images and flags of each.
        watermarker: what marks finished PIL images, by `apply_watermark(images, size)`.
        null_text: what stands for "no text" under guidance: "zeros" (Imagen), "empty" (the encoding of "", DeepFloyd IF) or
            "learned" (the networks know; imagen-pytorch).
        max_sequence_length: tokens of a prompt that are read, where the encoder has places for as many.
        text_padding: "longest" hides padding from the networks; "max_length" shows them max_sequence_length tokens (DeepFloyd IF).
        clean_caption: prompts go through DeepFloyd IF's cleaning, which lowers case and drops what web captions are littered with.
        num_inference_steps, guidance_scale, noise_level, guidance_interval: what this checkpoint's authors recommend, one value
            a stage or one for all; they are the calls' defaults.

    Raises:
        ValueError: for a value of these that no call could use.
    """

    model_cpu_offload_seq = "text_encoder->unet->unet_2->unet_3"
    _optional_components = [
        "tokenizer",
        "text_encoder",
        "unet",
        "scheduler",
        "unet_2",
        "scheduler_2",
        "unet_3",
        "scheduler_3",
        "safety_checker",
        "feature_extractor",
        "watermarker",
    ]
    _exclude_from_cpu_offload = ["safety_checker", "watermarker"]
    _callback_tensor_inputs = ["latents", "low_res", "prompt_embeds", "negative_prompt_embeds"]

    def __init__(  # noqa: PLR0913 (one argument per component, as diffusers asks)
        self,
        tokenizer: PreTrainedTokenizerBase | None = None,
        text_encoder: PreTrainedModel | ModelMixin | None = None,  # one of ours is a graph
        unet: ModelMixin | None = None,
        scheduler: SchedulerMixin | None = None,
        unet_2: ModelMixin | None = None,
        scheduler_2: SchedulerMixin | None = None,
        unet_3: ModelMixin | None = None,
        scheduler_3: SchedulerMixin | None = None,
        safety_checker: Any = None,
        feature_extractor: Any = None,
        watermarker: Any = None,
        null_text: str = "zeros",
        max_sequence_length: int = 128,
        text_padding: str = "longest",
        clean_caption: bool = False,
        num_inference_steps: Sequence[int] | int = (50, 30, 20),
        guidance_scale: Sequence[float] | float = (7.0, 4.0, 1.0),
        noise_level: Sequence[float] | float = (0.0, 200.0, 200.0),
        guidance_interval: tuple[Any, ...] | list[Any] = (EVERYWHERE, EVERYWHERE, EVERYWHERE),
    ):
        super().__init__()
        self.register_modules(
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            unet=unet,
            scheduler=scheduler,
            unet_2=unet_2,
            scheduler_2=scheduler_2,
            unet_3=unet_3,
            scheduler_3=scheduler_3,
            safety_checker=safety_checker,
            feature_extractor=feature_extractor,
            watermarker=watermarker,
        )
        self.register_to_config(
            null_text=null_text,
            max_sequence_length=max_sequence_length,
            text_padding=text_padding,
            clean_caption=clean_caption,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            noise_level=noise_level,
            guidance_interval=guidance_interval,
        )
        self.image_processor = VaeImageProcessor(vae_scale_factor=1)

    def register_to_config(self, **kwargs: Any) -> None:
        """As in diffusers; one value for all stages is kept as one for each.

        Raises:
            ValueError: for a value that no call could use.
        """
        super().register_to_config(**checked_config(kwargs))

    def __setattr__(self, name: str, value: Any) -> None:
        """Assigning to a slot that was empty registers it, so that `save_pretrained` does not drop it."""
        if name.startswith("scheduler"):
            check_swapped(name, self.__dict__.get(name), value)
        empty = name in self._optional_components and value is not None and tuple(self.config.get(name) or ()) == (None, None)
        if empty:
            self.register_modules(**{name: value})
        else:
            super().__setattr__(name, value)

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs: Any) -> Self:
        """The pipeline of another task with the same components, loaded once, and the same configuration.

        Args:
            pipeline: another cascade's, whose slices, tiles and progress bar are kept, too; one of diffusers' for
                a stage of DeepFloyd IF; or any that diffusers' own `from_pipe` takes.
            kwargs: components and configuration in place of the pipeline's; `dtype` casts what both of them hold.
        """
        of_if = deepfloyd.is_deepfloyd({"_class_name": type(pipeline).__name__})
        if not of_if and not isinstance(pipeline, Cascade):
            return super().from_pipe(pipeline, **kwargs)  # pyright: ignore[reportReturnType]
        dtype = kwargs.pop("dtype", kwargs.pop("torch_dtype", None))
        given = {**pipeline.components, **kwargs}
        optional = {name: pipeline.config[name] for name in cls._get_signature_keys(cls)[1] if name in pipeline.config}
        made = cls(**({**deepfloyd.SETTINGS, **deepfloyd.in_their_slots(given)} if of_if else {**optional, **given}))
        made.register_to_config(_name_or_path=pipeline.config.get("_name_or_path"))
        if isinstance(pipeline, Cascade):
            made._rows, made._tiles = pipeline._rows, pipeline._tiles
            made._exclude_from_cpu_offload = pipeline._exclude_from_cpu_offload  # by which the device of offloaded networks is found
        made.set_progress_bar_config(**getattr(pipeline, "_progress_bar_config", {}))  # diffusers makes it when it is first set
        return made if dtype is None else made.to(dtype)

    @torch.no_grad()
    def _run(self, request: Request) -> ImagenCascadePipelineOutput | tuple:
        """Images of a request, whatever its task; networks that were offloaded are so again when it ends, whatever ended it.

        Raises:
            ValueError: for inputs that do not fit the stages; the message says which and what would.
        """
        self._interrupt = False
        try:
            output = self._made(request)
        finally:
            self.maybe_free_model_hooks()
        return output if request.return_dict else output.to_tuple()

    def _made(self, request: Request) -> ImagenCascadePipelineOutput:
        """What `_run` hands out."""
        tensor_inputs = self._check(request)
        plan = self._plan(request)
        images, outputs, flags = plan.low_res, [], None
        embeds = {name: text and text.embeds for name, text in zip(("prompt_embeds", "negative_prompt_embeds"), plan.texts, strict=True)}
        callbacks = Callbacks(self, request.callback_on_step_end, request.callback_on_stage_end, tensor_inputs, embeds)
        with self._running([run.number for run in plan.runs], plan.steps) as progress:
            for run in plan.runs:
                images = self._run_stage(run, plan, images, callbacks, progress)
                handed, flags = self.hand_out(images / 2 + 0.5, request.output_type)
                outputs.append(handed)
                callbacks.after_stage(run.number, handed)
                if self._interrupt:
                    break
        finished = outputs[-1]
        if images is not None and plan.edit is not None and plan.edit.padding is not None:
            finished, flags = self.hand_out(plan.edit.pasted(images), request.output_type)
        return ImagenCascadePipelineOutput(finished, outputs, flags)

    def _check(self, request: Request) -> Sequence[str]:
        """What can be seen to be wrong of a request before anything is read; the tensors that its callback is handed."""
        check_output_type(request.output_type)
        self.check_can_be_marked(request.output_type)
        tensor_inputs = tensors_of(request.callback_on_step_end, request.callback_on_step_end_tensor_inputs)
        check_callback_inputs(tensor_inputs, self._callback_tensor_inputs)
        check_count("num_images_per_prompt", request.num_images_per_prompt)
        check_sides(request.height, request.width, request.scale)
        return tensor_inputs

    def _plan(self, request: Request) -> Plan:
        """The request, read."""
        images, numbers, stages = self._chosen(request)
        device, networks = self._execution_device, self.networks
        edit = None if request.edit is None else request.edit.read(numbers, channels_of_images(networks, numbers), device)
        sides = (request.height, request.width)
        if edit is not None and images is None:
            sides = edit.sides([networks[n] for n in numbers], *sides)
        sizes = plan_sizes(stages, reference_size(networks, numbers[0]), *sides, images, request.scale)
        cond_images = prepare_cond_images(request.cond_images, stages, device)
        rows = max(1 if edit is None else edit.rows, *(len(given) for given in (images, cond_images) if given is not None), 1)
        texts, prompts = self._texts(request, stages, rows)
        each = (prompts, request.num_images_per_prompt)
        generators = stage_generators(request.generator, prompts * request.num_images_per_prompt, len(SLOTS))
        images = None if images is None else one_per_prompt(request.name_of_low_res, images, *each)
        cond_images = None if cond_images is None else one_per_prompt("cond_images", cond_images, *each)
        tasks = [(None, None)] * len(stages) if edit is None else edit.for_stages(sizes, *each)
        noises = noise_per_stage(request.latents, stages, sizes, len(generators[0]))
        runs = [
            StageRun(number, stage, Path(stage.prepared_scheduler(device), *task), size, generators[number - 1], noise)
            for number, stage, task, size, noise in zip(numbers, stages, tasks, sizes, noises, strict=True)
        ]
        return Plan(runs, texts, images, cond_images, edit)

    def _chosen(self, request: Request) -> tuple[Tensor | None, list[int], list[Stage]]:
        """What the first stage enlarges (N, C, h, w) in [-1, 1], if it does; the numbers of the stages that run, and these."""
        networks, name = self.networks, request.name_of_low_res
        if request.edit is not None and request.low_res is None:
            check_starts_at_a_base(type(self).__name__, networks)
        images = image_to_enlarge(request.low_res, networks, request.start_at, self._execution_device, name)
        numbers = numbers_to_run(networks, images, request.start_at, request.stop_at, name)
        if images is not None and request.stop_at is None and request.edit is None:
            numbers = numbers_that_enlarge(networks, numbers, images, request.height, request.width, request.scale)
        stages = self.stages(numbers, **request.settings)
        if request.unprompted:
            stages = [replace(stage, guidance_scale=1.0, guider=None) for stage in stages]  # from no text to no text there is no way
        for stage in stages:
            warn_of_guidance_twice(stage.name, stage.network.module, stage.guidance_scale)
        return images, numbers, stages

    def _run_stage(self, run: StageRun, plan: Plan, low_res: Tensor | None, callbacks: Callbacks, progress: Any) -> Tensor:
        """One stage's images (B, C, height, width) in [-1, 1]; `progress` is the call's one bar over all stages' steps."""
        stage, path, size = run.stage, run.path, run.size
        self._guidance_scale = self._asked_guidance_scale = stage.guidance_scale
        text, null_text = plan.texts
        given = {"text": text, "null_text": null_text, "low_res": low_res, "cond_images": plan.cond_images, "noise": run.noise}
        if "desc" not in getattr(self, "_progress_bar_config", {}):  # the caller's own
            progress.set_description(f"{stage.name} {size[1]}x{size[0]}")
        images = None if path.start is None else path.start.image.to(stage.dtype)  # where no step is made
        for state in stage.denoise(path, size, run.generators, **given, on_step_begin=callbacks.before_step):
            callbacks.after_step(state)
            progress.update()
            images = state.latents
            if self._interrupt:
                break
        assert images is not None, "a stage without steps starts from an image"
        if not torch.isfinite(images).all():
            raise ValueError(
                f"stage {stage.name} gave NaN or infinite values with {type(path.prepared).__name__} in {stage.num_inference_steps} steps; "
                "take more steps, another scheduler, or a wider dtype"
            )
        return images.clamp(-1, 1)
