"""The pipelines of all tasks, known to diffusers' Auto classes: each finds the others by any of them."""

from imagen_diffusers.hub.registration import register_with_auto_pipelines, register_with_diffusers

from .pipeline_imagen_cascade import ImagenCascadePipeline
from .pipeline_imagen_cascade_img2img import ImagenCascadeImg2ImgPipeline
from .pipeline_imagen_cascade_inpaint import ImagenCascadeInpaintPipeline
from .pipeline_imagen_cascade_upscale import ImagenCascadeUpscalePipeline

__all__ = ["ImagenCascadeImg2ImgPipeline", "ImagenCascadeInpaintPipeline", "ImagenCascadePipeline", "ImagenCascadeUpscalePipeline"]

register_with_diffusers(ImagenCascadePipeline, ImagenCascadeImg2ImgPipeline, ImagenCascadeInpaintPipeline, ImagenCascadeUpscalePipeline)


def register_tasks() -> None:
    """Let the Auto classes find them."""
    tasks = {"text2image": ImagenCascadePipeline, "image2image": ImagenCascadeImg2ImgPipeline, "inpaint": ImagenCascadeInpaintPipeline}
    register_with_auto_pipelines("imagen-cascade", **tasks)
