"""Imagen on diffusers: text to a 1024px picture by a cascade of pixel diffusion models (Saharia et al., 2022)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusers.models.modeling_utils import ModelMixin as ModelMixin
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline as DiffusionPipeline
    from diffusers.schedulers.scheduling_utils import SchedulerMixin as SchedulerMixin

    from .hub import bundled as bundled
    from .models.unet_imagen import ImagenUNet2DConditionModel as ImagenUNet2DConditionModel
    from .models.unet_imagen_efficient import ImagenEfficientUNet2DConditionModel as ImagenEfficientUNet2DConditionModel
    from .models.unet_imagen_pytorch import ImagenPytorchUNet2DConditionModel as ImagenPytorchUNet2DConditionModel
    from .pipelines.output import ImagenCascadePipelineOutput as ImagenCascadePipelineOutput
    from .pipelines.pipeline_imagen_cascade import ImagenCascadePipeline as ImagenCascadePipeline
    from .pipelines.sampling_preset import SamplingPreset as SamplingPreset
    from .schedulers.scheduling_imagen_ddim import ImagenDDIMScheduler as ImagenDDIMScheduler
    from .schedulers.scheduling_imagen_ddpm import ImagenDDPMScheduler as ImagenDDPMScheduler
    from .schedulers.scheduling_imagen_dpmsolver_multistep import ImagenDPMSolverMultistepScheduler as ImagenDPMSolverMultistepScheduler
    from .schedulers.scheduling_imagen_edm_dpmsolver_multistep import (
        ImagenEDMDPMSolverMultistepScheduler as ImagenEDMDPMSolverMultistepScheduler,
    )
    from .schedulers.scheduling_imagen_euler_discrete import ImagenEulerDiscreteScheduler as ImagenEulerDiscreteScheduler
    from .schedulers.scheduling_imagen_pytorch import ImagenPytorchScheduler as ImagenPytorchScheduler
    from .schedulers.scheduling_imagen_unipc_multistep import ImagenUniPCMultistepScheduler as ImagenUniPCMultistepScheduler

__version__ = "0.1.0"

# Imported when first asked for: torch, transformers and diffusers take seconds, and `imagen-diffusers --help` needs none of them.
_HOMES = {
    "ModelMixin": "diffusers.models.modeling_utils",
    "DiffusionPipeline": "diffusers.pipelines.pipeline_utils",
    "SchedulerMixin": "diffusers.schedulers.scheduling_utils",
    "bundled": ".hub",
    "ImagenUNet2DConditionModel": ".models.unet_imagen",
    "ImagenEfficientUNet2DConditionModel": ".models.unet_imagen_efficient",
    "ImagenPytorchUNet2DConditionModel": ".models.unet_imagen_pytorch",
    "ImagenCascadePipelineOutput": ".pipelines.output",
    "ImagenCascadePipeline": ".pipelines.pipeline_imagen_cascade",
    "SamplingPreset": ".pipelines.sampling_preset",
    "ImagenDDIMScheduler": ".schedulers.scheduling_imagen_ddim",
    "ImagenDDPMScheduler": ".schedulers.scheduling_imagen_ddpm",
    "ImagenDPMSolverMultistepScheduler": ".schedulers.scheduling_imagen_dpmsolver_multistep",
    "ImagenEDMDPMSolverMultistepScheduler": ".schedulers.scheduling_imagen_edm_dpmsolver_multistep",
    "ImagenEulerDiscreteScheduler": ".schedulers.scheduling_imagen_euler_discrete",
    "ImagenPytorchScheduler": ".schedulers.scheduling_imagen_pytorch",
    "ImagenUniPCMultistepScheduler": ".schedulers.scheduling_imagen_unipc_multistep",
}
__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import_module(".pipelines.registration", __name__).register_with_diffusers()
    globals()[name] = getattr(import_module(_HOMES[name], __name__), name)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
