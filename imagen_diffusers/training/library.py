"""The package that reads images wherever they are, which comes with the extra `train`."""

from typing import Any

from imagen_diffusers.extras import install


def library() -> Any:
    """Hugging Face `datasets`, imported where it is first asked for."""
    try:
        import datasets
    except ImportError:
        raise ImportError(f"captioned images are read by the package datasets, which is not here: {install('train')}") from None
    return datasets
