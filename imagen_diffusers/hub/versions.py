"""Which version of a library runs; the package itself may be run from its folder, without being installed."""

from importlib.metadata import PackageNotFoundError, version


def version_of(name: str) -> str:
    """Of a library by its name on PyPI, or "not installed"."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
