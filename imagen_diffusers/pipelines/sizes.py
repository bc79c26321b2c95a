"""At which sizes the stages of a call work."""

import logging
import math
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from numbers import Real
from typing import Any

from torch import Tensor

from imagen_diffusers.sampling.network import StageNetwork
from imagen_diffusers.sampling.stage import Stage

from .slots import UNETS

logger = logging.getLogger(__name__)
LONGEST_SIDE = 65_535  # pixels, of a JPEG; hardly any program opens a longer one in another format
FAR = (1 / 2, 9 / 4)  # of the area a base was trained at: beyond these it makes things small or several times


def reference_size(networks: dict[int, StageNetwork], first: int) -> int:
    """The size of the images that stage `first` starts from, as trained: the stage before's, or its own for a base.

    Where the stage before is not there it is taken to be four times smaller, as the paper's are.
    """
    if first - 1 in networks:
        return networks[first - 1].sample_size
    return networks[first].sample_size // (4 if networks[first].has_low_res else 1)


def check_sides(height: Any, width: Any, scale: Any) -> None:
    """Height and width are None or numbers of pixels; scale, in place of them, is None or one that makes images larger."""
    for name, side in (("height", height), ("width", width)):
        if side is not None and (not isinstance(side, Real) or not 1 <= float(side) <= LONGEST_SIDE):
            raise ValueError(f"{name} is {side!r}; it must be at least 1 pixel and at most {LONGEST_SIDE}, or None for the trained size")
    if scale is not None:
        checked_scale(scale)


def checked_scale(scale: Any, longer_side: int = 1) -> float:
    """How many times larger a result is than the image, as the caller says.

    Args:
        longer_side: of the image, where it is known.

    Raises:
        ValueError: for what is no number greater than 1, and for one that makes too large an image.
    """
    if not isinstance(scale, Real) or not 1 < float(scale) < float("inf"):
        raise ValueError(f"scale is {scale!r}, and stages only make images larger; give a number greater than 1, for example 2")
    if float(scale) * longer_side > LONGEST_SIDE:
        most = f"{math.floor(100 * LONGEST_SIDE / longer_side) / 100:.10g}"
        raise ValueError(f"scale is {scale!r}, and no side of a result is longer than {LONGEST_SIDE} pixels; give at most {most}")
    return float(scale)


def finest_step(networks: Sequence[StageNetwork]) -> int:
    """What height and width of the last stage's images must be multiples of, so that every stage's are multiples of its stride."""
    last = networks[-1].sample_size
    strides = [Fraction(network.stride * last, network.sample_size) for network in networks]  # in pixels of the last stage
    return math.lcm(*(stride.numerator for stride in strides))


def size_like(networks: Sequence[StageNetwork], image: tuple[int, int], height: int | None, width: int | None) -> tuple[int, int]:
    """(height, width) of the last stage's images where a call starts from an image: its shape, the longer side as long as trained.

    Args:
        networks: of the stages that run.
        image: (height, width) of the caller's.
        height, width: of the last stage's images, as the caller says; a side left out follows from the other.
    """
    scale = height / image[0] if height is not None else width / image[1] if width is not None else networks[-1].sample_size / max(image)
    fitting = _scaled(image, scale, finest_step(networks))
    return fitting[0] if height is None else height, fitting[1] if width is None else width


def plan_sizes(
    stages: list[Stage],
    start_size: int,
    height: int | None,
    width: int | None,
    images: Tensor | None,
    scale: float | None = None,
) -> list[tuple[int, int]]:
    """(height, width) of each stage, in the ratios the stages were trained at.

    Args:
        stages: those that run.
        start_size: the trained size of what the first one starts from.
        height, width: of the last stage's images; None for the trained size, or to follow `images`, whose shape one of them alone keeps.
        images: what a super-resolution stage starts from (B, C, h, w).
        scale: how many times larger than `images` the last stage's are, as nearly as the stages can; as they were trained by default.

    Raises:
        ValueError: for sizes that the stages cannot have.
    """
    networks = [stage.network for stage in stages]
    last, every = stages[-1].sample_size, finest_step(networks)
    if scale is not None and (height is not None or width is not None):
        raise ValueError(f"scale is {scale}, beside height={height}, width={width}; give scale, or height and width, not both")
    if images is not None:
        given, trained = (images.shape[-2], images.shape[-1]), last / start_size
        if height is not None or width is not None:
            height, width = size_like(networks, given, height, width)
        else:
            height, width = _scaled(given, trained if scale is None else checked_scale(scale, max(given)), every)
    final = (height or last, width or last)
    sizes = []
    for stage in stages:
        stride = stage.network.stride
        exact = [side * stage.sample_size / last for side in final]
        if any(side != int(side) or side < 1 or side % stride for side in exact):
            nearest = _scaled(final, 1.0, every)
            raise ValueError(
                f"height={final[0]}, width={final[1]} would make stage {stage.name} {exact[1]:g}x{exact[0]:g}, which is not a multiple of "
                f"its stride {stride}; with these stages both must be multiples of {every}, such as height={nearest[0]}, width={nearest[1]}"
            )
        sizes.append((int(exact[0]), int(exact[1])))
    if images is None:
        _look_at_base(tuple((UNETS.index(stage.name) + 1, stage.sample_size) for stage in stages), sizes[0], sizes[-1])
    else:
        _check_enlarged(stages[0].name, images, sizes[0])
        _look_at_scale(scale, images, every, final)
    return sizes


def _look_at_scale(scale: float | None, images: Tensor, every: int, final: tuple[int, int]) -> None:
    """Warn where the result is not exactly `scale` times as large as the images."""
    exactly = None if scale is None else tuple(_scaled(images.shape[-2:], scale, 1))
    if exactly is not None and exactly != final:
        logger.warning(
            f"scale={scale} would make {exactly[1]}x{exactly[0]} of the image; the stages that run make sides that are multiples of "
            f"{every}, and the result is {final[1]}x{final[0]}"
        )


@cache  # once for each size, and not for each image
def _look_at_base(trained: tuple[tuple[int, int], ...], size: tuple[int, int], final: tuple[int, int]) -> None:
    """Warn where a base works far from the area it was trained at; a wide or tall image may have that area, too.

    Args:
        trained: numbers and sizes of the stages that run, of which the first is a base.
        size, final: (height, width) of the base's and of the last stage's images.
    """
    own, last = trained[0][1], trained[-1][1]
    if _near(own, size):
        return
    fitting = next((number for number, side in trained if _near(side, final)), None)
    if fitting is not None:
        remedy = f"for {final[1]}x{final[0]} say stop_at={fitting} (--stop-at {fitting})"
    else:
        remedy = f"ask for about {last}x{last}, or as many pixels of another shape, or for other stages by stop_at (--stop-at)"
    logger.warning(
        f"the base works at {size[1]}x{size[0]}, and was trained at {own}x{own}: far from that it gives other things than "
        f"the prompt says; {remedy}"
    )


def _near(trained: int, size: tuple[int, int]) -> bool:
    return FAR[0] <= size[0] * size[1] / trained**2 <= FAR[1]


def _check_enlarged(name: str, images: Tensor, size: tuple[int, int]) -> None:
    """See that a stage's images are larger on both sides than those (B, C, h, w) that it starts from."""
    height, width = images.shape[-2:]
    if size[0] <= height or size[1] <= width:
        raise ValueError(
            f"stage {name} would make {size[1]}x{size[0]} of an image of {width}x{height}, and stages only make images larger; ask for a "
            "larger result, or for fewer stages by stop_at"
        )


def _scaled(size: Sequence[int], scale: float, every: int) -> list[int]:
    """The multiples of `every` nearest to both sides, scaled; at least one of it."""
    return [max(round(side * scale / every), 1) * every for side in size]
