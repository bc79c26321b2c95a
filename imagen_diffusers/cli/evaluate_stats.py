"""`imagen-diffusers evaluate-stats`."""

from pathlib import Path
from typing import Annotated

import typer

from . import options as o
from .evaluate import EXTRACTOR
from .loading import pick_device


def evaluate_stats(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Of true images, in folders of their own or not.")],
    extractor: Annotated[str, typer.Option(help=EXTRACTOR)],
    output: Annotated[Path, typer.Option(help="Where to write the .npz file; run again, it goes on.")],
    features: Annotated[
        bool, typer.Option("--features/--no-features", help="Keep what kid compares, every feature of every image.")
    ] = True,
    batch_size: Annotated[int, typer.Option(min=1, help="Images that are looked at together.")] = 16,
    device: o.Device = "auto",
) -> None:
    """Measure the true images of FOLDER once, for evaluate --reference."""
    if output.suffix != ".npz":
        raise ValueError(f'--output is "{output}"; give a name that ends in .npz')
    o.check_writable(output.parent)
    from imagen_diffusers.evaluation.extractors import load_extractor
    from imagen_diffusers.evaluation.features import write_folder_features
    from imagen_diffusers.evaluation.statistics import Statistics
    from imagen_diffusers.training.processes import process_group

    with process_group() as state:
        where = str(state.device) if state.use_distributed else pick_device(device)
        seer, path = load_extractor(extractor, where), output.with_suffix(".features.npy")
        rows = write_folder_features(folder, seer, path, batch_size)
        if state.is_main_process:
            Statistics.of(rows, seer.fingerprint, keep_features=features).save(output)
            for left in path.parent.glob(f"{path.name}*"):
                left.unlink()
            typer.echo(f"{output}: {len(rows)} images, {rows.shape[1]} features of {seer.name}, {output.stat().st_size / 1e6:.1f} MB")
