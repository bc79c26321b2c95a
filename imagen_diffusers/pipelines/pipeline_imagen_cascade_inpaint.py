"""A part of an image painted anew, through the whole cascade (RePaint, Lugmayr et al. 2022)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .cascade import Cascade
from .edits import Edit
from .image_inputs import Images
from .output import ImagenCascadePipelineOutput
from .request import Request


class ImagenCascadeInpaintPipeline(Cascade):
    """Image, mask and text to image; components and configuration are those of every `Cascade`.

    Every stage paints where the mask is white and keeps the rest, pixel for pixel.
    """

    def __call__(  # noqa: PLR0913 (diffusers' call convention)
        self,
        prompt: str | list[str] | None = None,
        image: Images | None = None,
        mask_image: Images | None = None,
        strength: float | Sequence[float] = 1.0,
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
        height: int | None = None,
        width: int | None = None,
        noise_level: float | Sequence[float] | None = None,
        guidance_interval: Sequence[Any] | None = None,
        guidance_parallel: float = 1.0,
        guider: Any = None,
        sigmas: Sequence[Any] | None = None,
        latents: Tensor | Sequence[Tensor | None] | None = None,
        start_at: int | None = None,
        stop_at: int | None = None,
        cond_images: Images | None = None,
        prompt_attention_mask: Tensor | None = None,
        negative_prompt_attention_mask: Tensor | None = None,
        jump_length: int = 1,
        jump_n_sample: int | Sequence[int] = 1,
        mask_feather: float = 0.0,
        seamless: bool = False,
        resize_mode: str = "default",
        padding_mask_crop: int | None = None,
        low_res: Images | None = None,
        callback_on_step_end: Callable[..., dict[str, Tensor]] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        callback_on_stage_end: Callable[..., None] | None = None,
    ) -> ImagenCascadePipelineOutput | tuple:
        """Paint parts of images anew.

        Args:
            prompt: what the whole result shows; without it the image alone is followed.
            image: what is known, of any size, resized to the size of the result first; one, or one for each prompt. Tensors in [0, 1].
            mask_image: gray, of the image's size, white (or True) where it is painted anew; one, or one for each prompt.
            strength: as in `ImagenCascadeImg2ImgPipeline.__call__`: how much of what lies under the mask is left. At 1 nothing is.
            height, width: of the last stage's images; by default the image's shape, its longer side as long as the stage was trained for.
            resize_mode: as in `ImagenCascadeImg2ImgPipeline.__call__`, of the image and of the mask.
            padding_mask_crop: paint a window alone, what is marked and so many pixels around it, and paste it back: the result is as large
                as the image, which stays bit for bit elsewhere. Windows have the shape of `height` and `width`, and are the `stage_images`.
            jump_length, jump_n_sample: each run of so many steps is made so many times, going back to more noise between: what is painted
                comes to fit what is known. 1 never goes back; one number, or one for each stage that runs.
            mask_feather: pixels of the result over which the painting fades into what is known; 0 keeps a hard edge.
            seamless: move the level of what is painted to that of what is known beside it, at every stage (Perez et al. 2003): no edge of
                the mask is seen, and colours of the painting may shift a little.
            low_res: what another call has left of the image in an earlier stage, an entry of its `stage_images`, to go on from; one, or one
                for each prompt. The result has its shape, and stages before it do not run.
            start_at: the stage `low_res` goes into, counted from 1; by default the first that enlarges it.
            num_inference_steps, guidance_scale, latents, stop_at, ...: as in `ImagenCascadePipeline.__call__`.

        Raises:
            ValueError: for inputs that do not fit the stages; the message says which and what would.
        """
        given = locals()
        if mask_image is None:
            raise ValueError("mask_image is missing; give a mask, white where the image is to be painted anew")
        edge = (mask_feather, jump_length, jump_n_sample, seamless, resize_mode, padding_mask_crop)
        return self._run(Request.of(given, low_res=low_res, edit=Edit(image, strength, mask_image, *edge)))
