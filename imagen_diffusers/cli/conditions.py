"""Conditioning images, for networks that were trained with them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def read_conditions(paths: Sequence[Path]) -> Any:
    """What a call takes as `cond_images`: one image, or a tensor (1, C, H, W) in [0, 1] of the channels of several, in their order.

    Raises:
        ValueError: for files that cannot be read, and several that are not of one size.
    """
    from imagen_diffusers.images import read_image

    images = [read_image(path) for path in paths]
    if len(images) == 1:
        return images[0]  # which becomes gray or RGB, as the network takes it
    import torch

    from imagen_diffusers.pipelines.image_inputs import images_to_tensor, is_gray

    sizes = {f"{image.width}x{image.height}" for image in images}
    if len(sizes) > 1:
        raise ValueError(f"--cond-image names files of {', '.join(sorted(sizes))}, whose channels cannot be put together; give one size")
    return torch.cat([images_to_tensor("cond_images", one, 1 if is_gray(one) else 3) for one in images], 1)


def digests(paths: Sequence[Path]) -> list[str]:
    """Of the files, for what is said of an image that was made with them."""
    from imagen_diffusers.evaluation.digests import file_digest

    return [file_digest(str(path)) for path in paths]
