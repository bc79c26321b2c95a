"""The checks of a call. Every error says what was given, what is allowed and what to do."""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from imagen_diffusers.sampling.stage import Stage
from imagen_diffusers.text.encoding import TextEmbedding

from .image_inputs import images_to_tensor

OUTPUT_TYPES = ("pil", "np", "pt")


def per_stage(
    name: str, given: Sequence[float] | float | None, config: Any, numbers: Sequence[int], *, least: float, below: float = float("inf")
) -> list[Any]:
    """A scalar, a list or None to one value per stage, in range; None stands for the config's.

    Args:
        name: of the setting, in a call and in the config.
        given: by the caller.
        config: the pipeline's, with one value per stage of the whole cascade.
        numbers: the stages that run, counted from 1.
        least, below: the range.
    """
    values = one_each(name, given, config, numbers)
    for value in values:
        if not isinstance(value, Real) or isinstance(value, bool) or not least <= value < below:  # pyright: ignore[reportOperatorIssue]
            top = "" if below == float("inf") else f" and less than {below:g}"
            told = value if isinstance(value, Real) else repr(value)
            raise ValueError(f"{name} is {told}; it must be a number of at least {least:g}{top}")
    return values


def whole_per_stage(name: str, given: Sequence[int] | int | None, config: Any, numbers: Sequence[int]) -> list[int]:
    """The same for whole numbers of at least 1."""
    values = per_stage(name, given, config, numbers, least=1)
    for value in values:
        if value != int(value):
            raise ValueError(f"{name} is {value}; it must be a whole number")
    return [int(value) for value in values]


def interval_per_stage(given: Sequence[Any] | None, config: Any, numbers: Sequence[int]) -> list[tuple[float, float]]:
    """A pair, pairs or None to one pair per stage."""
    pairs = one_each("guidance_interval", given, config, numbers)
    pairs = [tuple(pair) if isinstance(pair, Iterable) and not isinstance(pair, str) else pair for pair in pairs]
    for pair in pairs:
        numeric = isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(end, Real) for end in pair)
        if not numeric or not 0 <= pair[0] <= pair[1] <= 1:
            raise ValueError(f"guidance_interval is {pair}; give (start, end) with 0 <= start <= end <= 1, fractions of the steps")
    return [(float(start), float(end)) for start, end in pairs]


def listed(given: Any) -> Any:
    """Arrays and tensors as lists and numbers, those in lists, too; anything else as it is."""
    if hasattr(given, "tolist"):
        return given.tolist()
    return [listed(one) for one in given] if isinstance(given, list | tuple) else given


def is_one(name: str, given: Any) -> bool:
    """Whether a value is one for all stages: what is no list, and of guidance_interval a pair of numbers."""
    if not isinstance(given, Sequence) or isinstance(given, str):
        return True
    return name == "guidance_interval" and len(given) > 0 and not isinstance(given[0], Sequence)


def one_each(name: str, given: Any, config: Any, numbers: Sequence[int]) -> list[Any]:
    """One value per stage that runs: the config's for None, the same for all where `given` is one."""
    if given is None:
        recommended = config[name]
        if max(numbers) > len(recommended):
            raise ValueError(
                f"this pipeline's config has {len(recommended)} values of {name} and holds stage {max(numbers)}; "
                f"give {name}, one value for each stage that runs, or set it once by pipe.register_to_config({name}=[...])"
            )
        return [recommended[n - 1] for n in numbers]
    given = listed(given)
    values = [given] * len(numbers) if is_one(name, given) else list(given)
    if len(values) != len(numbers):
        raise ValueError(f"{name} has {len(values)} values for {len(numbers)} stages; give one, or one for each stage that runs")
    return values


def guider_per_stage(given: Any, numbers: Sequence[int], scale: Any, interval: Any, parallel: float) -> list[Any]:
    """The guider of each stage that runs, None for those without.

    Args:
        given: one for all stages, or one, or None, for each.
        numbers: the stages that run, counted from 1.
        scale, interval, parallel: as the caller gave them, which a guider takes the place of.

    Raises:
        ValueError: for any of these with a guider, and for counts that differ.
    """
    settings = {"guidance_scale": scale is not None, "guidance_interval": interval is not None, "guidance_parallel": parallel != 1}
    more = [name for name, is_given in settings.items() if is_given]
    if given is not None and more:
        raise ValueError(f"guider takes the place of {', '.join(more)}; leave out one or the other: a guider has settings of its own")
    return one_each("guider", given, {"guider": [None] * max(numbers)}, numbers)


def times_per_stage(timesteps: Any, sigmas: Any, numbers: Sequence[int]) -> list[tuple[str, list[float]] | None]:
    """The times of each stage that runs: a list for one stage, or one list or None for each of them.

    Raises:
        ValueError: for both timesteps and sigmas, for counts that differ, and for what is no list of times, an empty one, or one that
            does not fall.
    """
    if timesteps is not None and sigmas is not None:
        raise ValueError("give timesteps or sigmas, not both")
    name, given = ("timesteps", timesteps) if timesteps is not None else ("sigmas", sigmas)
    if given is None:
        return [None] * len(numbers)
    if not isinstance(given, Iterable) or isinstance(given, str):
        raise ValueError(f"{name} is {given}; give a list of times, or one list, or None, for each stage that runs")
    given = list(given)
    lists = given if any(one is None or isinstance(one, Sequence | Iterator) or getattr(one, "ndim", 0) for one in given) else [given]
    if len(lists) != len(numbers):
        raise ValueError(f"{name} has {len(lists)} lists for {len(numbers)} stages; give one list, or None, for each stage that runs")
    for one in lists:
        if one is not None and (not isinstance(one, Iterable) or isinstance(one, str)):
            raise ValueError(f"{name} of a stage is {one}; give a list of at least one time, or None for the scheduler's own")
    each = [None if one is None else list(one) for one in lists]
    if [] in each:
        raise ValueError(f"{name} of a stage is []; give a list of at least one time, or None for the scheduler's own")
    for one in each:
        if one is not None and not _falls(one):
            raise ValueError(f"{name} of a stage is {one}; give finite numbers from noise to image, each smaller than the one before")
    return [None if one is None else (name, one) for one in each]


def _falls(times: list[Any]) -> bool:
    """Whether these are finite numbers, each smaller than the one before; arrays and tensors of one number are such."""
    numbers = [one.item() if getattr(one, "ndim", None) == 0 else one for one in times]
    real = all(isinstance(one, Real) and math.isfinite(one) for one in numbers)
    return real and all(after < before for before, after in pairwise(numbers))


def noise_per_stage(given: Any, stages: Sequence[Stage], sizes: Sequence[tuple[int, int]], count: int) -> list[Tensor | None]:
    """The noise each stage starts from: a tensor for the first, or one or None for each stage that runs.

    Raises:
        ValueError: for shapes that are not (count, channels, height, width) of the stage.
    """
    tensors = [given] if given is None or isinstance(given, Tensor) else list(given) if isinstance(given, Sequence) else [given]
    strange = [one for one in tensors if one is not None and not isinstance(one, Tensor)]
    if strange:
        told = f"a {type(strange[0]).__name__}" if hasattr(strange[0], "shape") else repr(strange[0])
        raise ValueError(f"latents hold {told}; give a tensor of standard normal noise, or one, or None, for each stage that runs")
    if len(tensors) > len(stages):
        raise ValueError(f"latents has {len(tensors)} tensors for {len(stages)} stages; give one, or None, for each stage that runs")
    tensors += [None] * (len(stages) - len(tensors))
    for tensor, stage, size in zip(tensors, stages, sizes, strict=True):
        wanted = (count, stage.network.channels, *size)
        if tensor is not None and tuple(tensor.shape) != wanted:
            raise ValueError(f"latents of {stage.name} have the shape {tuple(tensor.shape)}; this call needs {wanted}, standard normal")
    return tensors


def check_finite(name: str, value: Any) -> None:
    """One finite number."""
    if not isinstance(value, Real) or not math.isfinite(float(value)):
        raise ValueError(f"{name} is {value}; it must be one finite number, for all stages")


def check_count(name: str, value: Any) -> None:
    """A whole number of at least 1."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} is {value!r}; it must be a whole number of at least 1")


def one_per_prompt(name: str, images: Tensor, prompts: int, images_per_prompt: int) -> Tensor:
    """Images given once, or once a prompt, as one row for each image that is generated."""
    check_one_per_prompt(name, images, prompts)
    return images.repeat_interleave(prompts * images_per_prompt // len(images), 0)


def check_one_per_prompt(name: str, images: Tensor, prompts: int) -> None:
    """Images given once, or once a prompt."""
    if len(images) not in (1, prompts):
        raise ValueError(f"{name} holds {len(images)} images for {prompts} prompts; give one, or one per prompt")


def prepare_cond_images(given: Any, stages: list[Stage], device: torch.device) -> Tensor | None:
    """Conditioning images (N, c, h, w) in [0, 1], where the stages take them.

    Raises:
        ValueError: where they are missing, or not taken, or have another number of channels than a stage takes.
    """
    needed = {stage.name: stage.network.cond_channels for stage in stages if stage.network.cond_channels}
    if given is None and not needed:
        return None
    if given is None or not needed:
        names = list(needed) or [stage.name for stage in stages]
        one = len(names) == 1
        trained = f"{'was' if one else 'were'} trained with conditioning images; give cond_images"
        not_taken = f"{'takes' if one else 'take'} no cond_images; leave them out"
        raise ValueError(f"{', '.join(names)} {trained if needed else not_taken}")
    if len(set(needed.values())) > 1:
        channels = ", ".join(f"{name} takes {n}" for name, n in needed.items())
        raise ValueError(f"these stages take conditioning images of different channels ({channels}); run one at a time")
    return images_to_tensor("cond_images", given, next(iter(needed.values()))).to(device)


def check_text_fits(stages: list[Stage], text: TextEmbedding) -> None:
    """Every stage takes embeddings of this width."""
    width = text.embeds.shape[-1]
    for stage in stages:
        if stage.network.text_dim not in (None, width):
            raise ValueError(
                f"the prompt's embeddings are {width} wide but stage {stage.name} takes {stage.network.text_dim}; "
                "all stages of a cascade must have been trained with the pipeline's text encoder"
            )


def check_output_type(output_type: str) -> None:
    if output_type not in OUTPUT_TYPES:
        raise ValueError(f'output_type="{output_type}" is unknown; use one of {", ".join(OUTPUT_TYPES)}')


def check_callback_inputs(asked: Any, offered: list[str]) -> None:
    if not isinstance(asked, Iterable) or isinstance(asked, str):
        raise ValueError(f"callback_on_step_end_tensor_inputs is {asked!r}; give a list of names, of {offered}")
    unknown = [name for name in asked if name not in offered]
    if unknown:
        raise ValueError(f"callback_on_step_end_tensor_inputs names {unknown}; a callback can see {offered}")
