"""Where the pipelines and scheduler presets that come with the package are."""

from pathlib import Path

FOLDERS = ("pipelines", "schedulers")


def bundled(name: str) -> Path:
    """The Hub-layout folder of this name: `ImagenCascadePipeline.from_pretrained(bundled("imagen-scenes"))`.

    In an installed wheel the folders lie inside the package, in a clone or an editable install beside it.

    Raises:
        ValueError: for a name that is not bundled; the message lists those that are.
    """
    here = Path(__file__).resolve().parent
    roots = [root / kind for root in (here / "hub_data", here.parent) for kind in FOLDERS]
    there = {folder.name: folder for root in reversed(roots) if root.is_dir() for folder in root.iterdir() if folder.is_dir()}
    if name not in there:
        raise ValueError(f'"{name}" is not bundled; these are: {", ".join(sorted(there))}')
    return there[name]
