"""`imagen-diffusers export`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from imagen_diffusers.hub.places import find

from . import options as o
from .loading import load

FORMATS = ("onnx", "openvino")


def export(
    model: Annotated[str, typer.Argument(help="A folder, the name of a bundled pipeline, or a Hub id.")],
    dest: Annotated[Path, typer.Argument(help="Where the folder of graphs is written.")],
    to: Annotated[str, typer.Option(help=f"{', '.join(FORMATS)}.")] = "onnx",
    quant_mode: Annotated[
        str | None, typer.Option(help="int8: networks multiply in eight bits. For --to openvino, with --prompts.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help=f"That eight bits are fitted to; 4 will do. {o.PROMPT_FILE}")
    ] = None,
    stop_at: o.StopAt = None,
    variant: o.Variant = None,
    revision: o.Revision = None,
) -> None:
    """Write the networks and the text encoder of MODEL as graphs that run without PyTorch's kernels; DEST is a --model like any other."""
    if to not in FORMATS:
        raise ValueError(f'--to "{to}" is unknown; use one of {", ".join(FORMATS)}')
    if quant_mode not in (None, "int8"):
        raise ValueError(f'--quant-mode "{quant_mode}" is unknown; use int8, or leave it out for float32')
    if (quant_mode is None) != (prompts is None) or (prompts is not None and to != "openvino"):
        raise ValueError("--quant-mode int8 and --prompts, a file of prompts, go together, and with --to openvino")
    o.check_writable(dest)
    from imagen_diffusers.evaluation.prompts import read_prompts
    from imagen_diffusers.export.checks import check_holds_no_weights, check_installed

    told = [] if prompts is None else [row["prompt"] for row in read_prompts(prompts)]
    check_holds_no_weights(dest)
    find(model, ("pipelines",))  # whoever gives another name hears of it before what is to be installed
    check_installed(openvino=to == "openvino", eight_bits=bool(told))
    pipe = _load(model, stop_at, variant, revision)
    from imagen_diffusers.export.cascade import export_cascade

    for name in export_cascade(pipe, dest, openvino=to == "openvino", prompts=told):
        typer.echo(name)
    size = sum(path.stat().st_size for path in dest.rglob("*") if path.is_file())
    typer.echo(f"written to {dest}, {size / 1e6:.1f} MB")


def _load(model: str, stop_at: int | None, variant: str | None, revision: str | None) -> Any:
    """The pipeline with its stages up to `stop_at`; the others are not read."""
    from imagen_diffusers.pipelines.slots import SLOTS

    without: dict[str, Any] = {} if stop_at is None else {name: None for slots in SLOTS[stop_at:] for name in slots}
    pipe = load(model, "float32", "cpu", variant, revision, **without)
    if stop_at is not None and stop_at not in pipe.stage_numbers:
        raise ValueError(f"--stop-at is {stop_at}; {model} has no such stage to end with")
    return pipe
