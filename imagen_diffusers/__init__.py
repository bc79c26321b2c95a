"""Imagen on diffusers: text to a 1024px picture by a cascade of pixel diffusion models (Saharia et al., 2022)."""

from diffusers.models.modeling_utils import ModelMixin as ModelMixin
from diffusers.pipelines import pipeline_loading_utils
from diffusers.pipelines.pipeline_utils import DiffusionPipeline as DiffusionPipeline
from diffusers.schedulers.scheduling_utils import SchedulerMixin as SchedulerMixin

from .hub import bundled as bundled
from .models.unet_imagen import ImagenUNet2DConditionModel as ImagenUNet2DConditionModel
from .models.unet_imagen_efficient import ImagenEfficientUNet2DConditionModel as ImagenEfficientUNet2DConditionModel
from .models.unet_imagen_pytorch import ImagenPytorchUNet2DConditionModel as ImagenPytorchUNet2DConditionModel
from .pipelines.output import ImagenCascadePipelineOutput as ImagenCascadePipelineOutput
from .pipelines.pipeline_imagen_cascade import ImagenCascadePipeline as ImagenCascadePipeline
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


def _register_with_diffusers() -> None:
    """Let diffusers load our classes by the package's name: `model_index.json` says ["imagen_diffusers", "..."].

    Without it a component is saved under the path of its file, breaks when the file moves, and never loads from the Hub.
    The table is private, so a diffusers that moved it is said so, not guessed around.
    """
    table = getattr(pipeline_loading_utils, "LOADABLE_CLASSES", None)
    if table is None:
        raise ImportError("this diffusers has no pipeline_loading_utils.LOADABLE_CLASSES; install the version in constraints.txt")
    methods = ["save_pretrained", "from_pretrained"]
    table.setdefault("imagen_diffusers", {"ModelMixin": methods, "SchedulerMixin": methods, "DiffusionPipeline": methods})


_register_with_diffusers()
