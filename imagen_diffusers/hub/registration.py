"""Our classes among those diffusers loads and saves by name."""

import diffusers
from diffusers.pipelines import pipeline_loading_utils


def register_with_diffusers(*pipelines: type) -> None:
    """Let diffusers load our classes by the package's name: `model_index.json` says ["imagen_diffusers", "..."].

    `DiffusionPipeline.from_pretrained` looks for the class of a pipeline in diffusers itself; it finds these pipelines there, unless
    diffusers has a class of that name.

    Without it a component is saved under the path of its file, breaks when the file moves, and never loads from the Hub.
    The table is private, so a diffusers that moved it is said so, not guessed around.
    """
    table = getattr(pipeline_loading_utils, "LOADABLE_CLASSES", None)
    if table is None:
        raise ImportError("this diffusers has no pipeline_loading_utils.LOADABLE_CLASSES; install the version in constraints.txt")
    methods = ["save_pretrained", "from_pretrained"]
    for pipeline in pipelines:
        if not hasattr(diffusers, pipeline.__name__):
            setattr(diffusers, pipeline.__name__, pipeline)
    table.setdefault("imagen_diffusers", {"ModelMixin": methods, "SchedulerMixin": methods, "DiffusionPipeline": methods})
