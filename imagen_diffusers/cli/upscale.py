"""`imagen-diffusers upscale`."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import PipelineOptions, SamplingOptions, TextOptions, check_kept, image_paths
from .resuming import first_seed, is_there
from .sampling import of_seeds, sample, stage_settings, told_of

TASK = "ImagenCascadeUpscalePipeline"
USUAL = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")  # go before icons, drawings and the like of the same name
Side = Annotated[int | None, typer.Option(min=1, help="Of the result, in pixels.")]


def upscale(
    image: Annotated[Path, typer.Argument(exists=True, help="Any image file, or a folder of them; transparent parts show white.")],
    prompt: Annotated[str, typer.Argument(help="What IMAGE shows.")],
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

    A folder's images are enlarged one after the other, into a folder that --output names; the same command run again goes on.
    """
    if scale is not None and (height is not None or width is not None):
        raise ValueError("give --scale, or --height and --width, not both")
    call: dict[str, Any] = {"scale": scale, "height": height, "width": width, "start_at": start_at, "stop_at": stop_at}
    if image.is_dir() and sampling.cond_image:
        raise ValueError(f"--cond-image is of one image, and {image} is a folder of them; give one image")
    if image.is_dir():
        _sample_folder(_of_folder(image, sampling.output), prompt, text, pipeline, sampling, call)
    else:
        sample(prompt, text, pipeline, sampling, task=TASK, sources={sampling.output: image}, **call)


def _sample_folder(
    sources: dict[Path, Path], prompt: str, text: TextOptions, pipeline: PipelineOptions, sampling: SamplingOptions, call: dict[str, Any]
) -> None:
    """Enlarge those images whose enlargements of this command are not there yet, or not all.

    Raises:
        ValueError: for values that do not fit, and for files of something else where enlargements go.
    """
    from imagen_diffusers.training.folders import one_run_in

    stage_settings(sampling)  # what is wrong with them is said before the folder is made
    paths = {output: image_paths(output, sampling.num_images_per_prompt) for output in sources}
    written = [path for those in paths.values() for path in those]
    check_kept(written, sources.values())
    count, folder = sampling.num_images_per_prompt, sampling.output
    with one_run_in(folder):
        seed = first_seed(one for those in paths.values() for one in enumerate(those[:count])) if sampling.seed is None else sampling.seed
        sampling, missing = replace(sampling, seed=seed), {}
        for output, source in sources.items():
            each = of_seeds(told_of(prompt, text, pipeline, sampling, TASK, source, **call), range(seed, seed + count))
            if not all([is_there(path, one) for path, one in zip(paths[output], each, strict=True)]):
                missing[output] = source
        if missing:
            sample(prompt, text, pipeline, sampling, task=TASK, sources=missing, **call)
    typer.echo(f"{folder}: {len(sources)} enlarged, {len(sources) - len(missing)} of them before")


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
    deeper = _deeper(folder, output)
    if not named:
        such = f", such as {deeper.parent}" if deeper else ""
        raise ValueError(f"{folder} holds no image; give a folder with PNG, JPEG or WebP files{such}")
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
    if deeper:
        typer.secho(f"left out: images in folders within {folder}, such as {deeper}", fg="yellow", err=True)
    return places


def _deeper(folder: Path, output: Path) -> Path | None:
    """An image file in folders of a folder, but for hidden ones and where enlargements go; who looks for it ends at the first."""
    from imagen_diffusers.images import image_files

    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        here = Path(place)
        if here == folder or here.resolve() == output.resolve():
            continue
        if images := image_files(here / name for name in names):
            return images[0]
    return None
