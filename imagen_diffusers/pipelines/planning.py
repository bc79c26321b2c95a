"""Which stages a call runs, and at which sizes."""

import logging
import math
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from imagen_diffusers.sampling.network import StageNetwork
from imagen_diffusers.sampling.stage import Stage

from .image_inputs import images_to_tensor
from .slots import UNETS

logger = logging.getLogger(__name__)
FAR = (1 / 2, 9 / 4)  # of the area a base was trained at: beyond these it makes things small or several times


def numbers_to_run(
    networks: dict[int, StageNetwork], images: Tensor | None, start_at: int | None, stop_at: int | None, argument: str = "image"
) -> list[int]:
    """Stages counted from 1, first to last.

    Args:
        networks: those the pipeline holds, by number.
        images: what a super-resolution stage starts from (B, C, h, w).
        start_at, stop_at: as the caller says.
        argument: the call's name for `images`.

    Raises:
        ValueError: for stages that are not there, and a start that does not fit the images.
    """
    there = sorted(networks)
    if not there:
        raise ValueError("this pipeline holds no stage; load or assign unet and scheduler first")
    for name, value in (("start_at", start_at), ("stop_at", stop_at)):
        if value is not None and (isinstance(value, bool) or value not in there):
            raise ValueError(f"{name} is {value!r}; this pipeline holds the stages {there}")
    check_order(networks)
    if start_at is None:
        start_at = there[0] if images is None else _first_to_enlarge(networks, images, argument)
    numbers = [n for n in there if start_at <= n <= (stop_at or there[-1])]
    if not numbers:
        raise ValueError(f"no stage lies between start_at={start_at} and stop_at={stop_at}")
    gaps = [n for n in range(numbers[0], numbers[-1]) if n not in there]
    if gaps:
        raise ValueError(
            f"stage {gaps[0]} is missing between the stages {numbers}, and the next one would enlarge what it was not trained on; "
            f"load stage {gaps[0]}, or end before it with stop_at={gaps[0] - 1}"
        )
    if networks[numbers[0]].has_low_res != (images is not None):
        need = (
            f"takes no image; leave {argument} out, or start at a stage that enlarges"
            if images is not None
            else f"needs {argument}=, to enlarge it"
        )
        raise ValueError(f"stage {numbers[0]} {need}")
    return numbers


def check_order(networks: dict[int, StageNetwork]) -> None:
    """See that a base is the first stage, and that each other one enlarges the images of the one before.

    Raises:
        ValueError: naming the slots and what they hold.
    """
    slots = {n: UNETS[n - 1] for n in networks}
    for n, network in networks.items():
        if network.has_low_res == (n == 1):
            kind, place = ("a super-resolution network", "unet_2 or unet_3") if n == 1 else ("a base network", "unet")
            raise ValueError(f"{slots[n]} holds {kind} of {network.sample_size}px, which belongs in {place}; put each network in its slot")
    for (n, small), (m, large) in pairwise(sorted(networks.items())):
        if small.sample_size >= large.sample_size:
            raise ValueError(
                f"{slots[n]} makes images of {small.sample_size}px and {slots[m]} of {large.sample_size}px, but each stage must be larger "
                "than the one before; exchange them, or leave one out"
            )


def check_starts_at_a_base(task: str, networks: dict[int, StageNetwork]) -> None:
    """For tasks whose image is not one to enlarge.

    Raises:
        ValueError: for a pipeline whose first stage enlarges.
    """
    if networks and networks[min(networks)].has_low_res:
        raise ValueError(
            f"{task} begins at a base stage, and this pipeline holds only the super-resolution stages {sorted(networks)}; load or assign "
            "unet and scheduler, go on from a small result by low_res, or enlarge images by ImagenCascadeUpscalePipeline"
        )


def image_to_enlarge(
    image: Any, networks: dict[int, StageNetwork], start_at: int | None, device: torch.device, argument: str = "image"
) -> Tensor | None:
    """The caller's images (N, C, h, w) in [-1, 1], with the channels that stage `start_at` enlarges, or all stages that enlarge any.

    Args:
        argument: the call's name for them.

    Raises:
        ValueError: for stages of several kinds, besides what `images_to_tensor` refuses.
    """
    if image is None:
        return None
    taken = {n: network.low_res_channels for n, network in networks.items() if network.has_low_res and start_at in (None, n)}
    channels = _one_number(taken, f"choose the stage that takes {argument} by start_at")
    return images_to_tensor(argument, image, channels).to(device) * 2 - 1


def channels_of_images(networks: dict[int, StageNetwork], numbers: Sequence[int]) -> int:
    """Channels of an image that each of the stages `numbers` starts from.

    Raises:
        ValueError: for stages of several kinds.
    """
    return _one_number({n: networks[n].channels for n in numbers}, "end before another kind by stop_at")


def _one_number(taken: dict[int, int], remedy: str) -> int:
    """The channels that all these stages take; 3 for no stage."""
    if len(set(taken.values())) > 1:
        each = ", ".join(f"stage {n} takes {channels}" for n, channels in taken.items())
        raise ValueError(f"stages take images of different channels ({each}); {remedy}")
    return next(iter(taken.values()), 3)


def reference_size(networks: dict[int, StageNetwork], first: int) -> int:
    """The size of the images that stage `first` starts from, as trained: the stage before's, or its own for a base.

    Where the stage before is not there it is taken to be four times smaller, as the paper's are.
    """
    if first - 1 in networks:
        return networks[first - 1].sample_size
    return networks[first].sample_size // (4 if networks[first].has_low_res else 1)


def check_sides(height: Any, width: Any) -> None:
    """Each is None or a number of pixels."""
    for name, side in (("height", height), ("width", width)):
        if side is not None and (not isinstance(side, Real) or not 1 <= float(side) < math.inf):
            raise ValueError(f"{name} is {side!r}; it must be at least 1 pixel, or None for the trained size")


def finest_step(networks: Sequence[StageNetwork]) -> int:
    """What height and width of the last stage's images must be multiples of, so that every stage's are multiples of its stride."""
    last = networks[-1].sample_size
    return max(network.stride * last // network.sample_size for network in networks)


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


def numbers_that_enlarge(
    networks: dict[int, StageNetwork], numbers: list[int], images: Tensor, height: int | None, width: int | None, scale: float | None
) -> list[int]:
    """Of the stages, from the first on, as many as were trained to enlarge most nearly so much, by its logarithm; one at least.

    Sizes are divided among stages in the ratios they were trained at: of two that enlarge four times each, asked for five times in all,
    the first would hardly enlarge the image, and the second would have to make up for what it lacks.

    Args:
        networks: those the pipeline holds, by number.
        numbers: the stages that may run.
        images: what the first one starts from (B, C, h, w).
        height, width, scale: as in `plan_sizes`; without them all stages run.
    """
    sides = [side / given for side, given in zip((height, width), images.shape[-2:], strict=True) if side is not None]
    if scale is not None:
        sides.append(_checked_scale(scale))
    if not sides:
        return numbers
    start = reference_size(networks, numbers[0])
    far = [abs(math.log(networks[n].sample_size / start / min(sides))) for n in numbers]
    chosen = numbers[: far.index(min(far)) + 1]
    first = networks[numbers[0]].sample_size
    while len(chosen) > 1 and min(sides) * first <= networks[chosen[-1]].sample_size:  # the first one would make it smaller
        chosen = chosen[:-1]
    return chosen


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
            height, width = _scaled(given, trained if scale is None else _checked_scale(scale), every)
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


def _checked_scale(scale: Any) -> float:
    if not isinstance(scale, Real) or not 1 < float(scale) < float("inf"):
        raise ValueError(f"scale is {scale!r}, and stages only make images larger; give a number greater than 1, for example 2")
    return float(scale)


def _first_to_enlarge(networks: dict[int, StageNetwork], images: Tensor, argument: str) -> int:
    """The first stage that makes larger images than these; of a cascade's own (low_res) the one that starts from images nearest in area."""
    height, width = images.shape[-2:]
    side, enlarging = max(height, width), [n for n in sorted(networks) if networks[n].has_low_res]
    bigger = [n for n in enlarging if networks[n].sample_size > side]
    if not bigger:
        more = "start_at" if argument == "low_res" else "start_at and scale"
        raise ValueError(f"no stage enlarges an image of {side}px; make it smaller, or give {more}")
    if argument == "low_res":
        return min(enlarging, key=lambda n: abs(math.log(math.sqrt(height * width) / reference_size(networks, n))))
    return bigger[0]
