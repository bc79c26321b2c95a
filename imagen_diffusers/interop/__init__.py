"""Networks that were trained elsewhere, one room for each origin. Importing this package lets the denoising loop run them all."""

from .deepfloyd import network as _deepfloyd  # noqa: F401
from .imagen_pytorch import network as _imagen_pytorch  # noqa: F401
