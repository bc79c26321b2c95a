"""Which version of a library runs; the package itself may be run from its folder, without being installed."""

from importlib.metadata import PackageNotFoundError, version

DECISIVE = ("imagen_diffusers", "torch", "diffusers", "transformers")


def versions() -> dict[str, str]:
    """Of the libraries that decide an image's bits."""
    return {name: version_of(name) for name in DECISIVE}


def version_of(name: str) -> str:
    """Of a library by its name on PyPI, or "not installed"."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
