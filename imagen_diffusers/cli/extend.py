"""`imagen-diffusers extend`."""

from typing import Annotated, Any

import typer

from .options import ImageFile, PipelineOptions, SamplingOptions, StopAt, TextOptions
from .sampling import sample

Side = Annotated[int | None, typer.Option(min=1, help="Of the result, in pixels; the image's own by default.")]
Offset = Annotated[int | None, typer.Option(min=0, help="Pixels of the result before the image; it stands in the middle by default.")]


def extend(
    image: ImageFile,
    prompt: Annotated[str, typer.Argument(help="What the whole canvas shows.")],
    text: TextOptions,
    pipeline: PipelineOptions,
    sampling: SamplingOptions,
    width: Side = None,
    height: Side = None,
    left: Offset = None,
    top: Offset = None,
    jump_n_sample: Annotated[int | None, typer.Option(min=1, help="How often each step is made, so that the painting fits.")] = None,
    stop_at: StopAt = None,
) -> None:
    """Paint around IMAGE, to a larger canvas that shows PROMPT."""
    if sampling.cond_image:
        raise ValueError("--cond-image is of one whole image, and extend paints windows of a canvas; leave it out, or give edit a mask")
    from imagen_diffusers.images import read_image
    from imagen_diffusers.pipelines.outpainting import outpaint, place

    known = read_image(image)
    width, height = width or known.width, height or known.height
    if (width, height) == known.size:
        raise ValueError(f"{image} is {known.width}x{known.height} already; give a larger --width or --height")
    place(known.size, width, height, left, top)  # said before anything is loaded

    def draw(pipe: Any, prompt: str | None = None, **call: Any) -> Any:
        return outpaint(pipe, prompt, known, width, height, left=left, top=top, **call)

    told: dict[str, Any] = {"width": width, "height": height, "left": left, "top": top}
    call: dict[str, Any] = {"jump_n_sample": jump_n_sample, "stop_at": stop_at}
    sample(prompt, text, pipeline, sampling, task="ImagenCascadeInpaintPipeline", draw=draw, told=told, kept=[image], **call)
