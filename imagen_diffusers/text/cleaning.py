"""DeepFloyd IF's caption cleaning, by diffusers' own code: checkpoints trained on cleaned captions expect cleaned prompts."""

import logging
from functools import cache

from diffusers.utils.import_utils import is_bs4_available, is_ftfy_available
from transformers.utils import logging as transformers_logging

from imagen_diffusers.extras import install

logger = logging.getLogger(__name__)


def cleans() -> bool:
    """Whether the packages that cleaning needs, beautifulsoup4 and ftfy, are here."""
    return is_bs4_available() and is_ftfy_available()


def clean_captions(prompts: list[str]) -> list[str]:
    """Lower case, without links, markup, file names and the like.

    Without the packages that `cleans` asks for only the case is lowered, of which the first call warns.
    """
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # it would tell of an image processor that is not used here
    try:
        from diffusers.pipelines.deepfloyd_if.pipeline_if import IFPipeline
    finally:
        transformers_logging.set_verbosity(verbosity)
    if not cleans():
        _warn_once()
    without_components = IFPipeline.__new__(IFPipeline)  # the method reads nothing of it but its patterns
    return without_components._text_preprocessing(prompts, clean_caption=cleans())  # where it is False diffusers says nothing


@cache
def _warn_once() -> None:
    logger.warning(
        "This checkpoint's prompts are cleaned (clean_caption) by beautifulsoup4 and ftfy, which are not both here, and only their case is "
        "lowered: %s",
        install("deepfloyd"),
    )
