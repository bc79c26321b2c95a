"""Imagen on diffusers: text to a 1024px image by a cascade of pixel diffusion models (Saharia et al., 2022)."""

from typing import TYPE_CHECKING, Any

from .hub.classes import MODULES, class_named, known_to_diffusers

if TYPE_CHECKING:
    from diffusers.models.modeling_utils import ModelMixin as ModelMixin
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline as DiffusionPipeline
    from diffusers.schedulers.scheduling_utils import SchedulerMixin as SchedulerMixin

    from .export.exported import ExportedNetwork as ExportedNetwork
    from .export.exported import ExportedTextEncoder as ExportedTextEncoder
    from .hub.places import bundled as bundled
    from .interop.imagen_pytorch.scheduling_lucidrains import LucidrainsScheduler as LucidrainsScheduler
    from .interop.imagen_pytorch.unet_lucidrains import LucidrainsUNet2DConditionModel as LucidrainsUNet2DConditionModel
    from .models.unet_imagen import ImagenUNet2DConditionModel as ImagenUNet2DConditionModel
    from .models.unet_imagen_efficient import ImagenEfficientUNet2DConditionModel as ImagenEfficientUNet2DConditionModel
    from .pipelines.output import ImagenCascadePipelineOutput as ImagenCascadePipelineOutput
    from .pipelines.sampling_presets import SamplingPreset as SamplingPreset
    from .pipelines.tasks import ImagenCascadeImg2ImgPipeline as ImagenCascadeImg2ImgPipeline
    from .pipelines.tasks import ImagenCascadeInpaintPipeline as ImagenCascadeInpaintPipeline
    from .pipelines.tasks import ImagenCascadePipeline as ImagenCascadePipeline
    from .pipelines.tasks import ImagenCascadeUpscalePipeline as ImagenCascadeUpscalePipeline
    from .schedulers.scheduling_imagen_ddim import ImagenDDIMScheduler as ImagenDDIMScheduler
    from .schedulers.scheduling_imagen_ddpm import ImagenDDPMScheduler as ImagenDDPMScheduler
    from .schedulers.scheduling_imagen_dpmsolver_multistep import ImagenDPMSolverMultistepScheduler as ImagenDPMSolverMultistepScheduler
    from .schedulers.scheduling_imagen_edm_dpmsolver_multistep import (
        ImagenEDMDPMSolverMultistepScheduler as ImagenEDMDPMSolverMultistepScheduler,
    )
    from .schedulers.scheduling_imagen_euler_discrete import ImagenEulerDiscreteScheduler as ImagenEulerDiscreteScheduler
    from .schedulers.scheduling_imagen_unipc_multistep import ImagenUniPCMultistepScheduler as ImagenUniPCMultistepScheduler

__version__ = "0.1.0"

__all__ = list(MODULES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    globals()[name] = class_named(name)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *MODULES})


known_to_diffusers()
