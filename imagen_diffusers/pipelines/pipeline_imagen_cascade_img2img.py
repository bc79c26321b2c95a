"""An image, varied or changed after a prompt, through the whole cascade (SDEdit, Meng et al. 2022)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .cascade import Cascade
from .edits import Edit
from .image_inputs import Images
from .output import ImagenCascadePipelineOutput
from .request import Request


class ImagenCascadeImg2ImgPipeline(Cascade):
    """Image and text to image; components and configuration are those of every `Cascade`.

    Every stage starts from the given image at its own size, noised, in place of noise alone.
    """

    def __call__(  # noqa: PLR0913 (diffusers' call convention)
        self,
        prompt: str | list[str] | None = None,
        image: Images | None = None,
        strength: float | Sequence[float] = 0.7,
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
        resize_mode: str = "default",
        low_res: Images | None = None,
        callback_on_step_end: Callable[..., dict[str, Tensor]] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        callback_on_stage_end: Callable[..., None] | None = None,
    ) -> ImagenCascadePipelineOutput | tuple:
        """Generate images that start from images.

        Args:
            prompt: what the result shows; without it the image alone is followed, which gives variations.
            image: what to start from, of any size; one, or one for each prompt. Tensors in [0, 1].
            strength: how much is changed, in [0, 1]: int(steps x strength) steps are made. 0 gives the image back, resized; at 1 nothing is
                left of it. One value, or one for each stage that runs.
            height, width: of the last stage's images; by default the image's shape, its longer side as long as the stage was trained for.
            resize_mode: how the image comes to a result of another shape: "default" stretches it, "crop" leaves out what is beyond, and
                "fill" repeats the pixels at its edges.
            latents: the noise, standard normal (N, C, H, W) of the first stage; or one (or None) for each.
            low_res: what another call has left of the image in an earlier stage, an entry of its `stage_images`, to go on from; one, or one
                for each prompt. The result has its shape, and stages before it do not run.
            start_at: the stage `low_res` goes into, counted from 1; by default the first that enlarges it.
            stop_at: the last stage to run.
            num_inference_steps, guidance_scale, ...: as in `ImagenCascadePipeline.__call__`.

        Raises:
            ValueError: for inputs that do not fit the stages; the message says which and what would.
        """
        return self._run(Request.of(locals(), low_res=low_res, edit=Edit(image, strength, resize_mode=resize_mode)))
