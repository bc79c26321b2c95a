"""The cascade: prompts to text embeddings to a 64px image to a 256px one to a 1024px one (Imagen, section 2)."""

from collections.abc import Callable, Sequence
from typing import Any

import PIL.Image
import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.models.modeling_utils import ModelMixin
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor
from transformers import PreTrainedTokenizerBase, T5EncoderModel

import imagen_diffusers.interop  # noqa: F401 (its networks, too, can be stages)
from imagen_diffusers.hub.registration import register_with_diffusers
from imagen_diffusers.sampling.guidance import EVERYWHERE
from imagen_diffusers.sampling.seeds import stage_generators
from imagen_diffusers.sampling.stage import Stage
from imagen_diffusers.schedulers.protocol import Scheduler
from imagen_diffusers.text.prompts import TextRules
from imagen_diffusers.text.t5 import TextEmbedding

from .arguments import (
    check_callback_inputs,
    check_count,
    check_output_type,
    check_text_fits,
    noise_per_stage,
    one_per_prompt,
    prepare_cond_images,
)
from .callbacks import RunningCallMixin, StepCallback, tensors_of
from .compiling import as_compiled
from .folders import FolderPipeline
from .lora_loader import ImagenLoraLoaderMixin
from .output import ImagenCascadePipelineOutput
from .planning import image_to_enlarge, numbers_to_run, plan_sizes, reference_size
from .stages import SLOTS, StagesMixin
from .text_inputs import TextInputs


class ImagenCascadePipeline(FolderPipeline, ImagenLoraLoaderMixin, StagesMixin, RunningCallMixin):
    """Text to image by a cascade of pixel diffusion models.

    Everything but the base is optional, and any component may be None: a base alone, a super-resolution stage alone, a
    pipeline that only encodes text.

    Args:
        tokenizer, text_encoder: a frozen T5 encoder; None where embeddings are given.
        unet, scheduler: the base stage.
        unet_2, scheduler_2, unet_3, scheduler_3: the super-resolution stages.
        null_text: what stands for "no text" under guidance: "zeros" (Imagen), "empty" (the encoding of "", DeepFloyd IF) or
            "learned" (the networks know; imagen-pytorch).
        max_sequence_length: tokens of a prompt that are read.
        text_padding: "longest" hides padding from the networks; "max_length" shows them max_sequence_length tokens (DeepFloyd IF).
        clean_caption: prompts go through DeepFloyd IF's cleaning, which lowers case and drops what web captions are littered with.
        num_inference_steps, guidance_scale, noise_level, guidance_interval: what this checkpoint's authors recommend, one value
            a stage; they are `__call__`'s defaults.
    """

    model_cpu_offload_seq = "text_encoder->unet->unet_2->unet_3"
    _optional_components = ["tokenizer", "text_encoder", "unet", "scheduler", "unet_2", "scheduler_2", "unet_3", "scheduler_3"]
    _callback_tensor_inputs = ["latents", "low_res", "prompt_embeds", "negative_prompt_embeds"]

    def __init__(  # noqa: PLR0913 (one argument per component, as diffusers asks)
        self,
        tokenizer: PreTrainedTokenizerBase | None = None,
        text_encoder: T5EncoderModel | None = None,
        unet: ModelMixin | None = None,
        scheduler: SchedulerMixin | None = None,
        unet_2: ModelMixin | None = None,
        scheduler_2: SchedulerMixin | None = None,
        unet_3: ModelMixin | None = None,
        scheduler_3: SchedulerMixin | None = None,
        null_text: str = "zeros",
        max_sequence_length: int = 128,
        text_padding: str = "longest",
        clean_caption: bool = False,
        num_inference_steps: tuple[int, ...] | list[int] = (50, 30, 20),
        guidance_scale: tuple[float, ...] | list[float] = (7.0, 4.0, 1.0),
        noise_level: tuple[float, ...] | list[float] = (0.0, 200.0, 200.0),
        guidance_interval: tuple[tuple[float, float], ...] | list[list[float]] = (EVERYWHERE, EVERYWHERE, EVERYWHERE),
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
        )
        self.register_to_config(
            null_text=null_text,
            max_sequence_length=max_sequence_length,
            text_padding=text_padding,
            clean_caption=clean_caption,
            num_inference_steps=list(num_inference_steps),
            guidance_scale=list(guidance_scale),
            noise_level=list(noise_level),
            guidance_interval=[list(pair) for pair in guidance_interval],
        )
        self.image_processor = VaeImageProcessor(vae_scale_factor=1)

    def __setattr__(self, name: str, value: Any) -> None:
        """Assigning to a slot that was empty registers it, so that `save_pretrained` does not drop it."""
        empty = name in self._optional_components and value is not None and tuple(self.config.get(name) or ()) == (None, None)
        if empty:
            self.register_modules(**{name: value})
        else:
            super().__setattr__(name, value)

    def encode_prompt(
        self,
        prompt: str | list[str] | None,
        negative_prompt: str | list[str] | None = None,
        num_images_per_prompt: int = 1,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        prompt_attention_mask: Tensor | None = None,
        negative_prompt_attention_mask: Tensor | None = None,
        do_classifier_free_guidance: bool = True,
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        """Prompts to what `__call__` takes in their place.

        Args:
            prompt, negative_prompt, num_images_per_prompt, prompt_embeds, ...: as in `__call__`.
            do_classifier_free_guidance: False leaves the negative ones None, where none are given.

        Returns:
            prompt_embeds (N, L, D), negative_prompt_embeds (N, M, D), prompt_attention_mask (N, L) and
            negative_prompt_attention_mask (N, M), with N = prompts x num_images_per_prompt, masks True at tokens.
        """
        given = TextInputs(
            prompt, negative_prompt, prompt_embeds, negative_prompt_embeds, prompt_attention_mask, negative_prompt_attention_mask
        )
        rules, device = TextRules.of(self.config), self._execution_device
        text, null = given.embed(self.tokenizer, self.text_encoder, rules, device, do_classifier_free_guidance)
        embeds, mask = (x.repeat_interleave(num_images_per_prompt, 0) for x in text)
        null_embeds, null_mask = (None, None) if null is None else (x.repeat_interleave(num_images_per_prompt, 0) for x in null)
        return embeds, null_embeds, mask, null_mask

    @torch.no_grad()
    def __call__(  # noqa: PLR0913 (diffusers' call convention)
        self,
        prompt: str | list[str] | None = None,
        negative_prompt: str | list[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | Sequence[int] | None = None,
        guidance_scale: float | Sequence[float] | None = None,
        noise_level: float | Sequence[float] | None = None,
        guidance_interval: Sequence[Any] | None = None,
        guidance_parallel: float = 1.0,
        timesteps: Sequence[Any] | None = None,
        sigmas: Sequence[Any] | None = None,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | Sequence[Tensor | None] | None = None,
        image: PIL.Image.Image | list[PIL.Image.Image] | Tensor | None = None,
        start_at: int | None = None,
        stop_at: int | None = None,
        cond_images: PIL.Image.Image | list[PIL.Image.Image] | Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        prompt_attention_mask: Tensor | None = None,
        negative_prompt_attention_mask: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[["ImagenCascadePipeline", int, Tensor, dict[str, Tensor]], dict[str, Tensor]] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> ImagenCascadePipelineOutput | tuple:
        """Generate images of prompts.

        Args:
            prompt: what to generate; or give `prompt_embeds`.
            negative_prompt: what to steer away from, in place of no text.
            height, width: of the last stage's images; by default what it was trained for.
            num_inference_steps: one value for all stages that run, or one each; the checkpoint's own by default.
            guidance_scale: likewise; 1 turns guidance off (the paper's w, equation 2).
            noise_level: likewise, augmentation of each stage's low-resolution condition in [0, 1000), the paper's aug_level
                times 1000: 0 follows it closely, more repairs more. A base stage ignores its own.
            guidance_interval: the steps that are guided, as fractions of them from noise to image, (start, end); one pair, or
                one per stage. Steps outside cost half (Kynkaanniemi et al. 2024).
            guidance_parallel: how much of guidance that is parallel to the guided output is kept; 1 is equation 2, less keeps
                contrast down, as imagen-pytorch 2.1 does with 0.
            timesteps, sigmas: in place of `num_inference_steps`, where schedulers take them; a list, or one (or None) a stage.
            num_images_per_prompt: images per prompt.
            generator: one, or one per image. The same one gives the same image in any batch.
            latents: noise to start from, standard normal (N, C, H, W) of the first stage that runs; or one (or None) for each.
            image: start from this image instead of the base stage: super-resolution. In [0, 1] where it is a tensor.
            start_at: the stage `image` goes into, counted from 1; by default the first that enlarges it.
            stop_at: the last stage to run.
            cond_images: for networks trained with conditioning images (imagen-pytorch's); tensors as those were, in [0, 1].
            prompt_embeds, negative_prompt_embeds, prompt_attention_mask, negative_prompt_attention_mask: from
                `encode_prompt`, in place of prompts; a mask left out means nothing is padded.
            output_type: "pil", "np" (N, H, W, C) in [0, 1], or "pt" (N, C, H, W) in [0, 1].
            return_dict: False returns (images, stage_images).
            callback_on_step_end: called after each step with the pipeline, the step counted over all stages, its
                timestep, and the tensors named by `callback_on_step_end_tensor_inputs`; may return new `latents`, and set
                `pipe._guidance_scale` (1 or less ends guidance for the running stage) or `pipe.interrupt`. diffusers' own callbacks work.

        Raises:
            ValueError: for inputs that do not fit the stages; the message says which and what would.
        """
        check_output_type(output_type)
        tensor_inputs = tensors_of(callback_on_step_end, callback_on_step_end_tensor_inputs)
        check_callback_inputs(tensor_inputs, self._callback_tensor_inputs)
        check_count("num_images_per_prompt", num_images_per_prompt)
        device = self._execution_device
        networks = self.networks
        images = image_to_enlarge(image, networks, start_at, device)
        numbers = numbers_to_run(networks, images, start_at, stop_at)
        settings = (num_inference_steps, guidance_scale, noise_level, guidance_interval, guidance_parallel, timesteps, sigmas)
        stages = self.stages(numbers, *settings)
        sizes = plan_sizes(stages, reference_size(networks, numbers[0]), height, width, images)
        texts, count = (None, None), num_images_per_prompt * (1 if images is None else len(images))
        given = (prompt_embeds, negative_prompt_embeds, prompt_attention_mask, negative_prompt_attention_mask)
        if TextInputs(prompt, negative_prompt, *given).wanted(stages, networks.values()):
            guided = callback_on_step_end is not None or any(stage.guidance_scale != 1 for stage in stages)  # a callback may begin it
            embeds, null_embeds, mask, null_mask = self.encode_prompt(prompt, negative_prompt, num_images_per_prompt, *given, guided)
            text = TextEmbedding(embeds, mask)
            null_text = None if null_embeds is None or null_mask is None else TextEmbedding(null_embeds, null_mask)
            longest = self.config["max_sequence_length"]
            texts = as_compiled(text, networks.values(), longest), as_compiled(null_text, networks.values(), longest)
            count = len(embeds)
            check_text_fits(stages, text)
        generators = stage_generators(generator, count, len(SLOTS))
        each = (count // num_images_per_prompt, num_images_per_prompt)
        images = one_per_prompt("image", images, *each)
        cond_images = one_per_prompt("cond_images", prepare_cond_images(cond_images, stages, device), *each)

        outputs = []
        embeds = {name: text and text.embeds for name, text in zip(("prompt_embeds", "negative_prompt_embeds"), texts, strict=True)}
        callback = StepCallback(self, callback_on_step_end, tensor_inputs, embeds)
        noises = noise_per_stage(latents, stages, sizes, count)
        runs = [
            (stage, stage.prepared_scheduler(device), size, generators[n - 1], noise)
            for n, stage, size, noise in zip(numbers, stages, sizes, noises, strict=True)
        ]
        with self._running(sum(len(scheduler.timesteps) for _, scheduler, *_ in runs)) as progress:
            for run in runs:
                images = self._run_stage(*run, texts, images, cond_images, callback, progress)
                outputs.append(self.image_processor.postprocess(images, output_type=output_type))
                if self._interrupt:
                    break
        self.maybe_free_model_hooks()
        return ImagenCascadePipelineOutput(outputs[-1], outputs) if return_dict else (outputs[-1], outputs)

    def _run_stage(
        self,
        stage: Stage,
        scheduler: Scheduler,
        size: tuple[int, int],
        generators: list[torch.Generator],
        noise: Tensor | None,
        texts: tuple[TextEmbedding | None, TextEmbedding | None],
        low_res: Tensor | None,
        cond_images: Tensor | None,
        callback: StepCallback,
        progress: Any,
    ) -> Tensor:
        """One stage's images (B, C, height, width) in [-1, 1]; `progress` is the call's one bar over all stages' steps."""
        self._guidance_scale = self._asked_guidance_scale = stage.guidance_scale
        given = {"text": texts[0], "null_text": texts[1], "low_res": low_res, "cond_images": cond_images, "noise": noise}
        progress.set_description(f"{stage.name} {size[1]}x{size[0]}")
        for state in stage.denoise(scheduler, size, generators, **given):
            callback(state)
            progress.update()
            if self._interrupt:
                break
        if not torch.isfinite(state.latents).all():
            raise ValueError(
                f"stage {stage.name} gave NaN or infinite values with {type(scheduler).__name__} in {stage.num_inference_steps} steps; "
                "take more steps, another scheduler, or a wider dtype"
            )
        return state.latents.clamp(-1, 1)


register_with_diffusers(ImagenCascadePipeline)
