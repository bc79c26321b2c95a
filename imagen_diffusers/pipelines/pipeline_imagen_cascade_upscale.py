"""Any image, larger: the cascade's super-resolution stages alone."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .cascade import Cascade
from .image_inputs import Images
from .output import ImagenCascadePipelineOutput
from .request import Request


class ImagenCascadeUpscalePipeline(Cascade):
    """Images to larger images; a base stage is left as it is, or left out. Components and configuration are those of every `Cascade`."""

    def __call__(  # noqa: PLR0913 (diffusers' call convention)
        self,
        prompt: str | list[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        image: Images | None = None,
        num_inference_steps: int | Sequence[int] | None = None,
        timesteps: Sequence[Any] | None = None,
        guidance_scale: float | Sequence[float] | None = None,
        negative_prompt: str | list[str] | None = None,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        noise_level: float | Sequence[float] | None = None,
        guidance_interval: Sequence[Any] | None = None,
        guidance_parallel: float = 1.0,
        guider: Any = None,
        sigmas: Sequence[Any] | None = None,
        scale: float | None = None,
        latents: Tensor | Sequence[Tensor | None] | None = None,
        start_at: int | None = None,
        stop_at: int | None = None,
        cond_images: Images | None = None,
        prompt_attention_mask: Tensor | None = None,
        negative_prompt_attention_mask: Tensor | None = None,
        callback_on_step_end: Callable[..., dict[str, Tensor]] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        callback_on_stage_end: Callable[..., None] | None = None,
    ) -> ImagenCascadePipelineOutput | tuple:
        """Enlarge images that show what the prompts say.

        Args:
            prompt: what the image shows.
            height, width: of the result; by default as many times larger as the stages enlarge, and one of them alone keeps the shape.
            scale: how many times larger the result is, more than 1, as nearly as the stages' strides allow, which a warning says; in place
                of height and width.
            image: what to enlarge; one, or one for each prompt. Tensors in [0, 1].
            noise_level: augmentation of each stage's low-resolution condition in [0, 1000): 0 follows the image closely, more repairs more.
            start_at: the stage `image` goes into, counted from 1; by default the first that enlarges it.
            stop_at: the last stage to run; by default the last that the size needs, so that each makes its images larger.
            num_inference_steps, guidance_scale, ...: as in `ImagenCascadePipeline.__call__`.

        Raises:
            ValueError: for inputs that do not fit the stages; the message says which and what would.
        """
        given = locals()
        if image is None:
            raise ValueError("image is missing; give the image to enlarge")
        return self._run(Request.of(given, low_res=image))
