"""95 % confidence intervals: of shares by Wilson's formula, and of means by resampling."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

Z = 1.959964  # so many standard deviations to both sides hold 95 % of a normal distribution
AT_ONCE = 2**22  # values that are resampled at a time, which bounds the memory


class Interval(NamedTuple):
    """A 95 % confidence interval."""

    low: float
    high: float


def wilson(right: float, count: float) -> Interval:
    """Of the share `right / count`: Wilson's score interval, which stays within [0, 1] and holds for small counts, too.

    Raises:
        ValueError: for no trials, or more right ones than trials.
    """
    if not 0 <= right <= count or not count:
        raise ValueError(f"a share of {right} right ones of {count} has no interval; give a count of at least 1 and at most as many right")
    share = right / count
    middle = (share + Z * Z / (2 * count)) / (1 + Z * Z / count)
    half = Z / (1 + Z * Z / count) * math.sqrt(share * (1 - share) / count + Z * Z / (4 * count * count))
    return Interval(max(middle - half, 0.0), min(middle + half, 1.0))


def clustered(rights: Tensor, counts: Tensor) -> Interval:
    """Of the share that is right of several judgements an image, which are not independent: Wilson's interval of as many independent ones
    as would leave the share as unsure as its spread over images does (Korn and Graubard 1998). Where all are alike, each image counts one.

    Resampling images instead would find 100 % in reach where one judgement is wrong, and surer than where none is.

    Args:
        rights, counts: (N,), how many judgements of each image are right, and how many there are; at least one image, and one judgement.
    """
    rights, counts = rights.double().cpu(), counts.double().cpu()
    right, count = rights.sum().item(), counts.sum().item()
    share, images = right / count, len(rights)
    if count == images:
        return wilson(right, count)
    if share in (0, 1):
        return wilson(share * images, images)
    if images == 1:
        return Interval(0.0, 1.0)
    variance = (rights - share * counts).square().sum().item() / count**2
    independent = min(share * (1 - share) / variance, count) if variance else count
    return wilson(share * independent, independent)


def paired(first: int, second: int, count: int) -> Interval:
    """Of the difference of two shares of the same `count` trials: Bonett and Price's (2012), which holds where few differ, or none.

    Args:
        first, second: in how many trials the first alone is right, and in how many the second alone.
    """
    one, other = (first + 1) / (count + 2), (second + 1) / (count + 2)
    half = Z * math.sqrt((one + other - (one - other) ** 2) / (count + 2))
    return Interval(max(one - other - half, -1.0), min(one - other + half, 1.0))


def normal(value: float, error: float) -> Interval:
    """Of a value whose errors are normal with standard deviation `error`."""
    return Interval(value - Z * error, value + Z * error)


def bootstrap(values: Tensor, *, resamples: int = 2000, seed: int = 0) -> Interval:
    """Of the mean of independent values (N,): the percentile bootstrap, the same interval in every run.

    Args:
        values: at least two, one an image, say.
        resamples: how many times N values are taken with replacement.
        seed: of what is taken.

    Raises:
        ValueError: for fewer values, or another shape.
    """
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"an interval of a mean needs at least two values in one dimension; these have the shape {tuple(values.shape)}")
    values, generator = values.double().cpu(), torch.Generator().manual_seed(seed)
    few = max(AT_ONCE // len(values), 1)
    means = []
    for done in range(0, resamples, few):
        taken = torch.randint(len(values), (min(few, resamples - done), len(values)), generator=generator)
        means.append(values[taken].mean(1))
    # The nearest of the means, as between one that is infinite and another there is nothing.
    return Interval(*torch.cat(means).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), interpolation="nearest").tolist())
