"""Our classes among those diffusers loads and saves by name."""

import diffusers
from diffusers.pipelines import pipeline_loading_utils


def register_with_diffusers(*classes: type) -> None:
    """Let diffusers load our classes by the package's name: `model_index.json` says ["imagen_diffusers", "..."].

    `DiffusionPipeline.from_pretrained` looks for the class of a pipeline in diffusers itself, and `AutoModel` for that of a network
    alone; they find these classes there, unless diffusers has one of that name. Schedulers stay out: of one that is there, diffusers
    drops what the next one does not know, and a swap would lose our options on the way back.

    Without it a component is saved under the path of its file, breaks when the file moves, and never loads from the Hub.
    The table is private, so a diffusers that moved it is said so, not guessed around.
    """
    table = getattr(pipeline_loading_utils, "LOADABLE_CLASSES", None)
    if table is None:
        raise ImportError("this diffusers has no pipeline_loading_utils.LOADABLE_CLASSES; install diffusers 0.42")
    methods = ["save_pretrained", "from_pretrained"]
    for one in classes:
        if not hasattr(diffusers, one.__name__):
            setattr(diffusers, one.__name__, one)
    table.setdefault("imagen_diffusers", {"ModelMixin": methods, "SchedulerMixin": methods, "DiffusionPipeline": methods})


def register_with_auto_pipelines(model: str, **tasks: type) -> None:
    """Let `AutoPipelineForText2Image`, `...Image2Image` and `...Inpainting` find these pipelines, and each by any of them.

    Args:
        model: a name for the kind of model they share.
        tasks: the pipeline of each task: `text2image`, `image2image`, `inpaint`.
    """
    from diffusers.pipelines import auto_pipeline  # imports all of diffusers' pipelines: only where it is imported anyway

    for task, pipeline in tasks.items():
        table = getattr(auto_pipeline, f"AUTO_{task.upper()}_PIPELINES_MAPPING", None)
        if table is None:
            raise ImportError(f"this diffusers has no table of Auto pipelines for {task}; install diffusers 0.42")
        table[model] = pipeline
