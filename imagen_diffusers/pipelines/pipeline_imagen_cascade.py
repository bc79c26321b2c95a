"""Text to image by the cascade: prompts to text embeddings to a 64px image to a 256px one to a 1024px one (Imagen, section 2)."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .cascade import Cascade
from .image_inputs import Images
from .output import HandedOut, ImagenCascadePipelineOutput
from .request import Request


class ImagenCascadePipeline(Cascade):
    """Text to image by a cascade of pixel diffusion models; components and configuration are those of every `Cascade`."""

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
        guider: Any = None,
        timesteps: Sequence[Any] | None = None,
        sigmas: Sequence[Any] | None = None,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | Sequence[Tensor | None] | None = None,
        image: Images | None = None,
        start_at: int | None = None,
        stop_at: int | None = None,
        cond_images: Images | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        prompt_attention_mask: Tensor | None = None,
        negative_prompt_attention_mask: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[["ImagenCascadePipeline", int, Tensor, dict[str, Tensor]], dict[str, Tensor]] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        callback_on_stage_end: Callable[["ImagenCascadePipeline", int, HandedOut], None] | None = None,
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
            guider: of `diffusers.guiders`, in place of the three; one for all stages, or one (or None, unguided) each. It is copied, and
                acts on what the networks predict.
            timesteps, sigmas: in place of `num_inference_steps`, where schedulers take them; a list, or one (or None) a stage. Sigmas
                end in 0.
            num_images_per_prompt: images per prompt.
            generator: one, or one per image. The same one gives the same image in any batch.
            latents: noise to start from, standard normal (N, C, H, W) of the first stage that runs; or one (or None) for each.
            image: an image to enlarge; `ImagenCascadeUpscalePipeline` is the place for it.
            start_at: the stage `image` goes into, counted from 1; by default the first that enlarges it.
            stop_at: the last stage to run.
            cond_images: for networks trained with conditioning images (imagen-pytorch's); tensors as those were, in [0, 1].
            prompt_embeds, negative_prompt_embeds, prompt_attention_mask, negative_prompt_attention_mask: from
                `encode_prompt`, in place of prompts; a mask left out means nothing is padded, or, for imagen-pytorch's cascades as
                there (`null_text="learned"`), that rows of zeros are padding.
            output_type: "pil", "np" (N, H, W, C) in [0, 1], or "pt" (N, C, H, W) in [0, 1].
            return_dict: False returns (images, stage_images), and nsfw_detected after them where there is a safety checker.
            callback_on_step_end: called after each step with the pipeline, the step counted over all stages, its
                timestep, and the tensors named by `callback_on_step_end_tensor_inputs`; may return new `latents`, and set
                `pipe._guidance_scale` (1 or less ends guidance for the running stage; with a guider it is the guider's) or
                `pipe.interrupt`. diffusers' own callbacks work.
            callback_on_stage_end: called as soon as a stage is finished, with the pipeline, the stage's number counted from 1, and its
                images as asked for by `output_type`; may set `pipe.interrupt`, and is not called for a stage that was interrupted.

        Raises:
            ValueError: for inputs that do not fit the stages; the message says which and what would.
        """
        given = locals()
        if image is not None:
            warnings.warn(
                "image= of ImagenCascadePipeline will go; enlarge images by ImagenCascadeUpscalePipeline, "
                "for example ImagenCascadeUpscalePipeline.from_pipe(pipe)(prompt, image=image)",
                FutureWarning,
                stacklevel=2,
            )
        return self._run(Request.of(given, low_res=image))
