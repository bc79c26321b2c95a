"""Distances between two sets of features, in float64: Frechet's, of Gaussians, and the kernel distance; and the inception score.

The published names are FID (Heusel et al. 2017), KID (Binkowski et al. 2018) and IS (Salimans et al. 2016), where the features are the
Inception network's; the formulas hold for any extractor's.
"""

import torch
from torch import Tensor

from .intervals import Interval, normal
from .statistics import Statistics, check_fingerprint, merged

ROWS = 512  # of a kernel matrix's side that are in memory at a time
LEFT_OUT = 10  # parts of which each is left out once, for the spread of a Frechet distance


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """The squared Frechet distance of two Gaussians, |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)).

    It is biased: fewer images give a larger distance, so only distances of equally many images compare.

    Raises:
        ValueError: for features of different widths or extractors, and for fewer images than the covariance has rows.
    """
    check_fingerprint("the second set of features", b.fingerprint, a.fingerprint)
    check_widths(a.mean, b.mean)
    for one in (a, b):
        if one.count <= len(one.mean):
            raise ValueError(
                f"a Frechet distance over {len(one.mean)} features needs at least {len(one.mean) + 1} images for its covariance, and there "
                f"are {one.count}; give more images, or ask for the kernel distance (kid), which holds for few"
            )
    return _frechet(a, b)


def frechet_spread(features: Tensor, reference: Statistics, parts: int = LEFT_OUT) -> float:
    """The standard error of a Frechet distance that comes from which images were generated: the jackknife over left-out parts.

    It says nothing of the bias, which all sets of this size share.

    Args:
        features: (N, D) of the generated images, which must not be ordered by anything but chance; row i belongs to part i % `parts`.
        reference: the other set, taken as it is.
        parts: from 2 to N / 2; each is left out once.
    """
    pieces = [Statistics.of(features[n::parts], reference.fingerprint) for n in range(parts)]
    distances = torch.tensor([_frechet(merged(pieces[:n] + pieces[n + 1 :]), reference) for n in range(parts)], dtype=torch.float64)
    return ((parts - 1) * distances.var(correction=0)).sqrt().item()


def kernel_distance(a: Tensor, b: Tensor, subsets: int, subset_size: int, generator: torch.Generator) -> tuple[float, float]:
    """The squared maximum mean discrepancy over random subsets, as KID is published: mean and standard deviation over them.

    The standard deviation belongs to one subset and depends on its size; `kernel_interval` says how sure the distance is.

    Args:
        a, b: features (N, D) and (M, D).
        subsets: how many; 100 in publications.
        subset_size: images of each set in one, taken without replacement; 1000 in publications.
        generator: of the subsets.

    Raises:
        ValueError: for features of different widths, and for fewer images than a subset has.
    """
    from torchmetrics.image.kid import poly_mmd

    check_widths(a[0], b[0])
    if not 2 <= subset_size <= min(len(a), len(b)):
        raise ValueError(
            f"subsets of {subset_size} images cannot be taken of {len(a)} and of {len(b)}; "
            f"give a subset_size from 2 to {min(len(a), len(b))}"
        )
    values = []
    for _ in range(subsets):
        one, other = (x[torch.randperm(len(x), generator=generator)[:subset_size]].double() for x in (a, b))
        values.append(poly_mmd(one, other))
    together = torch.stack(values)
    return together.mean().item(), together.std(correction=0).item()


def kernel_interval(a: Tensor, b: Tensor) -> tuple[float, Interval]:
    """The squared maximum mean discrepancy of all images, without bias, and its 95 % interval.

    The interval is normal, by each image's influence on the distance, so it counts the chance in both sets. Where both have one
    distribution the influences vanish, and it is wider than it needs to be.

    Args:
        a, b: features (N, D) and (M, D), at least two each; they may lie memory-mapped.

    Raises:
        ValueError: for features of different widths, and for fewer.
    """
    check_widths(a[0], b[0])
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a kernel distance needs at least two images of each set; there are {len(a)} and {len(b)}")
    within_a, within_b = (_mean_kernels(x, x) for x in (a, b))
    across_a, across_b = _mean_kernels(a, b), _mean_kernels(b, a)
    distance = (within_a.mean() + within_b.mean() - across_a.mean() - across_b.mean()).item()
    variance = 4 * (within_a - across_a).var() / len(a) + 4 * (within_b - across_b).var() / len(b)
    return distance, normal(distance, variance.sqrt().item())


def inception_score(logits: Tensor, splits: int, generator: torch.Generator) -> tuple[float, float]:
    """exp of the mean KL divergence of p(class | image) from p(class): mean and standard deviation over splits of the images.

    Args:
        logits: (N, classes).
        splits: equal parts that are scored by themselves, 10 in publications; at most N.
        generator: of the order of the images, which are shuffled first.
    """
    if not 1 <= splits <= len(logits):
        raise ValueError(f"{len(logits)} images cannot be split into {splits} parts; give 1 to {len(logits)}")
    log_p = logits[torch.randperm(len(logits), generator=generator)].double().log_softmax(1)
    scores = []
    for part in log_p.tensor_split(splits):
        p = part.exp()
        scores.append((p * (part - p.mean(0).log())).sum(1).mean().exp())
    together = torch.stack(scores)
    return together.mean().item(), together.std(correction=0).item()


def check_widths(a: Tensor, b: Tensor) -> None:
    """Features (D,) of both sets must be of one width."""
    if len(a) != len(b):
        raise ValueError(f"features of {len(a)} and of {len(b)} numbers have no distance; give both sets to one extractor")


def _frechet(a: Statistics, b: Statistics) -> float:
    """By symmetric roots alone: A^(1/2) B A^(1/2) has the eigenvalues of A B, and its own solver keeps them real."""
    values, vectors = torch.linalg.eigh(a.covariance)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ b.covariance @ root).clamp(min=0).sqrt().sum()
    return ((a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * cross).item()


def _mean_kernels(a: Tensor, b: Tensor) -> Tensor:
    """For each row of `a` the mean of its kernels with `b`'s, without itself where both are one: (N,)."""
    from torchmetrics.image.kid import poly_kernel

    sums = []
    for some in a.split(ROWS):
        some = some.double()
        total = sum(poly_kernel(some, others.double()).sum(1) for others in b.split(ROWS))
        sums.append(total - ((some * some).mean(1) + 1) ** 3 if a is b else total)
    return torch.cat(sums) / (len(b) - (a is b))
