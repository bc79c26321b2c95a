"""DeepFloyd IF's caption cleaning, by diffusers' own code: checkpoints trained on cleaned captions expect cleaned prompts."""

from diffusers.pipelines.deepfloyd_if.pipeline_if import IFPipeline


def clean_captions(prompts: list[str]) -> list[str]:
    """Lower case, without links, markup, file names and the like.

    Without the packages bs4 and ftfy diffusers says so and only lowers the case.
    """
    without_components = IFPipeline.__new__(IFPipeline)  # the method reads nothing of it but its patterns
    return without_components._text_preprocessing(prompts, clean_caption=True)
