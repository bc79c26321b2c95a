"""The files of the page: what browsers sent, and the images made for them, in one folder that nobody else reads.

Each image has a folder of its own whose name cannot be guessed. A browser remembers the names of its images, and finds them again by these
as long as they are kept: the oldest files go when there are too many.
"""

import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

from PIL import Image

from imagen_diffusers.images import open_image, read_image, read_settings, save_png

from .limits import Limits

FORMATS = ("PNG", "JPEG", "WEBP")  # whose decoders are used everywhere
NAME = re.compile(r"[0-9a-f]{32}")
MOST = 24  # images that a browser remembers


class Gallery:
    """Files below `folder`, within `limits`."""

    def __init__(self, folder: Path, limits: Limits):
        self.folder = folder.resolve()
        self._limits = limits
        self._lock = Lock()

    def keep(self, image: Image.Image, settings: dict[str, Any]) -> Path:
        """The PNG of an image, with its settings in its metadata."""
        self.make_room()
        path = self.folder / secrets.token_hex(16) / f"imagen-{settings['seed']}.png"
        save_png(image, path, settings)
        return path

    def remembered(self, names: Any) -> list[Path]:
        """Those of the images with these names that are still there, in their order; anything may be in the names' place."""
        if not isinstance(names, list):
            return []
        found = []
        for name in names[:MOST]:
            if isinstance(name, str) and NAME.fullmatch(name):
                found += list((self.folder / name).glob("imagen-*.png"))[:1]
        return found

    @staticmethod
    def name(path: Path) -> str:
        """By which `remembered` finds an image."""
        return path.parent.name

    @staticmethod
    def settings(path: Path) -> dict[str, Any]:
        """What an image was made with."""
        return read_settings(path)

    def uploaded(self, what: str, payload: Any) -> Path:
        """The file that a browser sent before, as it names it.

        Raises:
            ValueError: where there is none, or none of the page's.
        """
        if payload is None:
            raise ValueError(f"{what} is missing; drop one in")
        path = payload.get("path") if isinstance(payload, dict) else None
        if not isinstance(path, str) or "\0" in path or not self.holds(Path(path)):
            raise ValueError(f"{what} is not one that was sent to this page; drop it in again")
        return Path(path)

    def holds(self, path: Path) -> bool:
        """Whether a path, with links followed, is a file of the page."""
        found = path.resolve()
        return found.is_relative_to(self.folder) and found.is_file()

    def read(self, what: str, path: Path) -> Image.Image:
        """An image that a browser sent.

        Raises:
            ValueError: for a file that went while its request waited, is no image, or one of another kind, and for one with too many
                pixels, which is not decoded.
        """
        with self._reading(what, path):
            return read_image(path, formats=FORMATS, most_pixels=self._limits.image_pixels)

    def look(self, what: str, path: Path) -> None:
        """See by its head, without decoding it, whether `read` may read it.

        Raises:
            ValueError: as `read`.
        """
        with self._reading(what, path), open_image(path, formats=FORMATS, most_pixels=self._limits.image_pixels):
            pass

    @contextmanager
    def _reading(self, what: str, path: Path) -> Iterator[None]:
        """Sentences that call the file of a browser `what`, and not by its name here."""
        if not self.holds(path):
            raise ValueError(f"{what} is no longer kept; drop it in again")
        try:
            yield
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), what)) from None

    def make_room(self) -> None:
        """Let the oldest files go until no more are stored than may be."""
        with self._lock:
            entries = sorted((weighed for entry in self.folder.iterdir() if (weighed := _weighed(entry)) is not None), reverse=True)
            stored = 0
            for i, (_, size, entry) in enumerate(entries):
                stored += size
                if stored > self._limits.stored_bytes or i >= self._limits.stored_files:
                    _remove(entry)


def _weighed(entry: Path) -> tuple[float, int, Path] | None:
    """When an entry was last changed, its bytes, and itself; None for one that is gone: gradio moves what it has received."""
    try:
        files = list(entry.iterdir()) if entry.is_dir() else [entry]
        return entry.stat().st_mtime, sum(file.stat().st_size for file in files), entry
    except FileNotFoundError:
        return None


def _remove(entry: Path) -> None:
    if entry.is_dir():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)
