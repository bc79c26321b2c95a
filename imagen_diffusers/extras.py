"""How an extra is installed, as every message says it."""


def install(extra: str) -> str:
    """For whoever installed a wheel and for whoever has a clone, which holds the versions that the tests ran with."""
    return f'pip install "imagen_diffusers[{extra}]" (in a clone: pip install -c constraints.txt -e ".[{extra}]")'
