"""The same things in the flat style: SVG drawings of a package, found by code points, as images with alpha, as large as the others and at
1024px.

resvg renders them: its wheels need nothing beside them.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from tqdm import tqdm

from imagen_diffusers.training.folders import in_one_rename

from .compositions import LARGEST, SIZE
from .names import code
from .things import FLAT, IMAGES, LARGE, Thing

SIDES = {"left": 0, "top": 0, "width": 16, "height": 16}  # of Iconify's format, and what each is where nothing says it
NEEDED = 'SVG are rendered by resvg-py: pip install -c constraints.txt -e ".[emoji]", or leave the flat style out by --without_flat'


def with_flat(things: Sequence[Thing], package: Path, folder: Path) -> list[Thing]:
    """The same things, those of which there is a drawing with its image.

    Args:
        things: whose files are named by code points.
        package: folder of the npm package with the drawings.
        folder: of the things; images are put into its `images`, and those of 1024px into `large`.

    Raises:
        OSError: where it holds no drawings, or none of these things.
        ImportError: without resvg-py.
    """
    drawings, drawn = read_drawings(package), []
    _resvg()  # before any work
    for images in (IMAGES, LARGE):
        (folder / images).mkdir(parents=True, exist_ok=True)
    for thing in tqdm(things, desc="rendering the flat style", mininterval=5):
        svg = drawings.get(code(Path(thing.file).stem))
        if svg is not None:
            file = f"{FLAT}-{Path(thing.file).stem}.png"
            for images, size in ((IMAGES, SIZE), (LARGE, LARGEST)):
                with in_one_rename(folder / images / file) as part:
                    part.write_bytes(rendered(svg, size))
            thing = replace(thing, styles={FLAT: file})
        drawn.append(thing)
    if not any(thing.styles for thing in drawn):
        raise OSError(f"none of the {len(drawings)} drawings of {package} is of one of the {len(things)} things")
    return drawn


def read_drawings(package: Path) -> dict[str, str]:
    """By `code` the SVG of each, of no size yet; the package has names in `chars.json` and drawings in `icons.json`.

    Raises:
        OSError: where they are not there.
    """
    for part in ("chars.json", "icons.json"):
        if not (package / part).exists():
            raise OSError(f"{package} holds no {part}; give the folder of the unpacked npm package with flat emoji")
    whole = json.loads((package / "icons.json").read_text("utf-8"))
    names = json.loads((package / "chars.json").read_text("utf-8"))
    return {code(points): _svg(whole, whole["icons"][name]) for points, name in names.items() if name in whole["icons"]}


def _svg(whole: dict, icon: dict) -> str:
    """A drawing of its own: what its set says of all holds where it says nothing."""
    left, top, width, height = (icon.get(side, whole.get(side, usual)) for side, usual in SIDES.items())
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>'


def rendered(svg: str, size: int) -> bytes:
    """A PNG with alpha, so many pixels high and wide.

    Raises:
        ImportError: without resvg-py.
    """
    sized = svg.replace("<svg ", f'<svg width="{size}" height="{size}" ', 1)
    return bytes(_resvg().svg_to_bytes(svg_string=sized, skip_system_fonts=True))  # they hold no text


def _resvg() -> ModuleType:
    try:
        import resvg_py  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ImportError(NEEDED) from None
    return resvg_py
