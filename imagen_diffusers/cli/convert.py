"""`imagen-diffusers convert`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from imagen_diffusers.hub.places import find_and_fetch

from .loading import text_components
from .options import check_writable

# The options of each kind, which the other does not take.
OPTIONS = {"deepfloyd": ("stage_2", "variant"), "imagen-pytorch": ("settings", "raw", "text_encoder")}


def convert(
    kind: Annotated[str, typer.Argument(help="deepfloyd or imagen-pytorch.")],
    source: Annotated[str, typer.Argument(help="A stage of IF (folder or Hub id), or a file or trainer's folder of imagen-pytorch.")],
    dest: Annotated[Path, typer.Argument(help="Where the pipeline's folder is written.")],
    stage_2: Annotated[str | None, typer.Option(help="deepfloyd: the super-resolution stage after a base, folder or Hub id.")] = None,
    variant: Annotated[str | None, typer.Option(help='deepfloyd: of the weight files, for example "fp16".')] = None,
    settings: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="imagen-pytorch: JSON of Imagen's arguments that the file does not hold."),
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="imagen-pytorch: take raw weights, not averaged ones.")] = False,
    text_encoder: Annotated[str | None, typer.Option(help="imagen-pytorch: text encoder to put in, folder or Hub id.")] = None,
) -> None:
    """Make an ordinary pipeline folder of SOURCE, and say what was found and assumed."""
    given = {"stage_2": stage_2, "variant": variant, "settings": settings, "raw": raw, "text_encoder": text_encoder}
    if kind not in OPTIONS:
        raise ValueError(f'"{kind}" is unknown; convert {" or ".join(OPTIONS)}')
    for name, value in given.items():
        if value and name not in OPTIONS[kind]:
            raise ValueError(f"--{name.replace('_', '-')} is not for {kind}; leave it out")
    check_writable(dest)
    if (dest / "model_index.json").exists():
        raise ValueError(f"{dest} holds a pipeline, which would be written over; give another folder for the converted one")
    if kind == "deepfloyd":
        pipe, report = _from_deepfloyd(source, stage_2, variant)
    else:
        pipe, report = _from_imagen_pytorch(Path(source), settings, raw, text_encoder)
    pipe.save_pretrained(dest)
    typer.echo("\n".join([*report, f"written to {dest}"]))


def _from_deepfloyd(source: str, stage_2: str | None, variant: str | None) -> tuple[Any, list[str]]:
    from imagen_diffusers.interop.deepfloyd.components import FIRST_READ, is_super_resolution
    from imagen_diffusers.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline

    stages: list[str | None] = [find_and_fetch(stage, [FIRST_READ])[0] for stage in (source, stage_2) if stage is not None]
    if stage_2 is None and is_super_resolution(str(stages[0])):
        stages.insert(0, None)  # a second stage by itself
    pipe = ImagenCascadePipeline.from_deepfloyd(*stages, variant=variant)
    return pipe, [f"{pipe.slots(n)[0]}: {adapted.module.num_parameters() / 1e6:.1f} M parameters" for n, adapted in pipe.networks.items()]


def _from_imagen_pytorch(source: Path, settings: Path | None, raw: bool, text_encoder: str | None) -> tuple[Any, list[str]]:
    if not source.exists():
        raise ValueError(f"{source} is no file; give a checkpoint of imagen-pytorch")
    told = None if settings is None else _read_settings(settings)
    from imagen_diffusers.interop.imagen_pytorch.conversion import load_components
    from imagen_diffusers.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline

    components = {} if text_encoder is None else text_components(text_encoder, use_safetensors=True)
    parts, found, assumed = load_components(source, ema=not raw, settings=told)
    return ImagenCascadePipeline(**components, **parts), [*found, *assumed]


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    if not isinstance(told, dict):
        raise ValueError(f"{path} holds a {type(told).__name__}; give an object of Imagen's arguments by name")
    return told
