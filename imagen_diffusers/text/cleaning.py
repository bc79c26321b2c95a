"""DeepFloyd IF's caption cleaning, by diffusers' own code: checkpoints trained on cleaned captions expect cleaned prompts."""

from transformers.utils import logging as transformers_logging


def clean_captions(prompts: list[str]) -> list[str]:
    """Lower case, without links, markup, file names and the like.

    Without the packages bs4 and ftfy diffusers says so and only lowers the case.
    """
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # it would tell of an image processor that is not used here
    try:
        from diffusers.pipelines.deepfloyd_if.pipeline_if import IFPipeline
    finally:
        transformers_logging.set_verbosity(verbosity)
    without_components = IFPipeline.__new__(IFPipeline)  # the method reads nothing of it but its patterns
    return without_components._text_preprocessing(prompts, clean_caption=True)
