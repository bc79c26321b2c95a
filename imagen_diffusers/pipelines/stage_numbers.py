"""Which stages a call runs."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from imagen_diffusers.sampling.network import StageNetwork

from .image_inputs import images_to_tensor
from .sizes import checked_scale, reference_size
from .slots import UNETS


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
        first = "" if images is None else f", and {argument} is {images.shape[-1]}x{images.shape[-2]}"
        raise ValueError(
            f"no stage lies between start_at={start_at} and stop_at={stop_at}{first}; give a larger stop_at, or start at an earlier stage"
        )
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
        sides.append(checked_scale(scale, max(images.shape[-2:])))
    if not sides:
        return numbers
    start = reference_size(networks, numbers[0])
    far = [abs(math.log(networks[n].sample_size / start / min(sides))) for n in numbers]
    chosen = numbers[: far.index(min(far)) + 1]
    first = networks[numbers[0]].sample_size
    while len(chosen) > 1 and min(sides) * first <= networks[chosen[-1]].sample_size:  # the first one would make it smaller
        chosen = chosen[:-1]
    return chosen


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


def _first_to_enlarge(networks: dict[int, StageNetwork], images: Tensor, argument: str) -> int:
    """The first stage that makes larger images than these; of a cascade's own (low_res) the one that starts from images nearest in area."""
    height, width = images.shape[-2:]
    side, enlarging = max(height, width), [n for n in sorted(networks) if networks[n].has_low_res]
    bigger = [n for n in enlarging if networks[n].sample_size > side]
    if not enlarging:
        raise ValueError(f"this pipeline holds the stages {sorted(networks)}, and none that enlarges images; load or assign one")
    if not bigger:
        more = "start_at" if argument == "low_res" else f"start_at={enlarging[-1]} (--start-at {enlarging[-1]}) beside a scale"
        raise ValueError(f"no stage enlarges an image of {side}px by itself; make it smaller, or give {more}")
    if argument == "low_res":
        return min(enlarging, key=lambda n: abs(math.log(math.sqrt(height * width) / reference_size(networks, n))))
    return bigger[0]
