"""`imagen-diffusers upscale`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import PipelineOptions, SamplingOptions, TextOptions
from .sampling import sample

USUAL = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")  # go before icons, drawings and the like of the same name
Side = Annotated[int | None, typer.Option(min=1, help="Of the result, in pixels.")]


def upscale(
    image: Annotated[Path, typer.Argument(exists=True, help="Any image file, or a folder of them; transparent parts show white.")],
    prompt: str,
    text: TextOptions,
    pipeline: PipelineOptions,
    sampling: SamplingOptions,
    scale: Annotated[float | None, typer.Option(help="How many times larger, above 1; as much as the stages enlarge by default.")] = None,
    height: Side = None,
    width: Side = None,
    start_at: Annotated[int | None, typer.Option(min=2, help="The first stage to run; the first that enlarges by default.")] = None,
    stop_at: Annotated[int | None, typer.Option(min=2, help="The last stage to run.")] = None,
) -> None:
    """Enlarge IMAGE, which shows PROMPT, by the super-resolution stages.

    A folder's images are enlarged one after the other, into a folder that --output names.
    """
    if scale is not None and (height is not None or width is not None):
        raise ValueError("give --scale, or --height and --width, not both")
    call: dict[str, Any] = {"scale": scale, "height": height, "width": width, "start_at": start_at, "stop_at": stop_at}
    sources = _of_folder(image, sampling.output) if image.is_dir() else {sampling.output: image}
    sample(prompt, text, pipeline, sampling, task="ImagenCascadeUpscalePipeline", sources=sources, **call)


def _of_folder(folder: Path, output: Path) -> dict[Path, Path]:
    """The image files of a folder, by where each one's enlargement goes.

    Raises:
        ValueError: for a folder without images, or with files that are none in spite of their names, an output that is a file's name, and
            two images that would be one file there.
    """
    from imagen_diffusers.images import has_image_name, image_files, open_image

    if output.is_file() or has_image_name(output):
        raise ValueError(f'{folder} is a folder and --output "{output}" the name of a file; give a folder for the enlarged images')
    named: dict[str, list[Path]] = {}
    for image in image_files(folder.iterdir()):
        named.setdefault(image.stem, []).append(image)
    if not named:
        raise ValueError(f"{folder} holds no image; give a folder with PNG, JPEG or WebP files")
    usual = {stem: [image for image in images if image.suffix.lower() in USUAL] for stem, images in named.items()}
    places = {output / f"{stem}.png": (usual[stem] or images)[0] for stem, images in named.items()}
    twice = [stem for stem, images in named.items() if len(usual[stem] or images) > 1]
    if twice:
        raise ValueError(f"{folder} holds several images named {', '.join(twice)}, which would be one PNG; rename them")
    for image in places.values():
        with open_image(image):  # before the first one is enlarged
            pass
    left = sorted({image.name for images in named.values() for image in images} - {image.name for image in places.values()})
    if left:
        typer.secho(f"left out, beside images of the same names: {', '.join(left)}", fg="yellow", err=True)
    return places
