"""The public classes by name, and the modules they live in."""

from importlib import import_module
from typing import Any

from .after_import import after_import

PACKAGE = __name__.split(".")[0]

# By name alone: torch, transformers and diffusers take seconds to import, and `imagen-diffusers --help` needs none of them.
MODULES = {
    "ModelMixin": "diffusers.models.modeling_utils",
    "DiffusionPipeline": "diffusers.pipelines.pipeline_utils",
    "SchedulerMixin": "diffusers.schedulers.scheduling_utils",
    "bundled": ".hub.places",
    "ImagenUNet2DConditionModel": ".models.unet_imagen",
    "ImagenEfficientUNet2DConditionModel": ".models.unet_imagen_efficient",
    "LucidrainsUNet2DConditionModel": ".interop.imagen_pytorch.unet_lucidrains",
    "ExportedNetwork": ".export.exported",
    "ExportedTextEncoder": ".export.exported",
    "ImagenCascadePipelineOutput": ".pipelines.output",
    "ImagenCascadePipeline": ".pipelines.tasks",
    "ImagenCascadeImg2ImgPipeline": ".pipelines.tasks",
    "ImagenCascadeInpaintPipeline": ".pipelines.tasks",
    "ImagenCascadeUpscalePipeline": ".pipelines.tasks",
    "SamplingPreset": ".pipelines.sampling_presets",
    "ImagenDDIMScheduler": ".schedulers.scheduling_imagen_ddim",
    "ImagenDDPMScheduler": ".schedulers.scheduling_imagen_ddpm",
    "ImagenDPMSolverMultistepScheduler": ".schedulers.scheduling_imagen_dpmsolver_multistep",
    "ImagenEDMDPMSolverMultistepScheduler": ".schedulers.scheduling_imagen_edm_dpmsolver_multistep",
    "ImagenEulerDiscreteScheduler": ".schedulers.scheduling_imagen_euler_discrete",
    "LucidrainsScheduler": ".interop.imagen_pytorch.scheduling_lucidrains",
    "ImagenUniPCMultistepScheduler": ".schedulers.scheduling_imagen_unipc_multistep",
}
EXPORTED = ("ExportedNetwork", "ExportedTextEncoder")  # those of components that have graphs in place of weights
NETWORKS = tuple(name for name in MODULES if name.endswith("UNet2DConditionModel"))
# Names that saved folders may hold.
FORMER = {
    "ImagenPytorchUNet2DConditionModel": "LucidrainsUNet2DConditionModel",
    "ImagenPytorchScheduler": "LucidrainsScheduler",
}


def class_named(name: str) -> Any:
    """The public class, or function, of this name; imported now, and known to diffusers from then on.

    Raises:
        AttributeError: for a name that is not public.
    """
    name = FORMER.get(name, name)
    if name not in MODULES:
        raise AttributeError(f"module {PACKAGE!r} has no attribute {name!r}")
    from .registration import register_with_diffusers

    register_with_diffusers()
    return getattr(import_module(MODULES[name], PACKAGE), name)


def known_to_diffusers() -> None:
    """Have `DiffusionPipeline` and the Auto classes load our pipelines and networks, as soon as diffusers is imported."""

    def tasks() -> Any:
        return import_module(".pipelines.tasks", PACKAGE)

    def networks() -> None:
        from .registration import register_with_diffusers

        register_with_diffusers(*map(class_named, NETWORKS))

    after_import("diffusers.models.auto_model", networks)
    after_import("diffusers.pipelines.pipeline_utils", tasks)
    after_import("diffusers.pipelines.auto_pipeline", lambda: tasks().register_tasks())
