"""Distances between two sets of features, in float64: Frechet's, of Gaussians, and the kernel distance; and the inception score.

The published names are FID (Heusel et al. 2017), KID (Binkowski et al. 2018) and IS (Salimans et al. 2016), where the features are the
Inception network's; the formulas hold for any extractor's.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .intervals import Interval, normal
from .statistics import Statistics, check_fingerprint, check_finite, merged

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
    return gaussian_distance(a, b)


def gaussian_distance(a: Statistics, b: Statistics, root: Tensor | None = None) -> float:
    """The same of any two Gaussians, whatever they were estimated from.

    Args:
        a, b: of one width.
        root: of `b`'s covariance, where it is known.
    """
    root = _root(b.covariance) if root is None else root
    # B^(1/2) A B^(1/2) has the eigenvalues of A B, and as it is symmetric, its solver keeps them real.
    cross = torch.linalg.eigvalsh(root @ a.covariance @ root).clamp(min=0).sqrt().sum()
    return ((a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * cross).item()


def frechet_spread(features: Tensor, reference: Statistics, parts: int = LEFT_OUT, *, seed: int = 0) -> float:
    """The standard error of a Frechet distance that comes from which images were generated: the jackknife over left-out parts.

    It says nothing of the bias, which all sets of this size share.

    Args:
        features: (N, D) of the generated images, in any order.
        reference: the other set, taken as it is.
        parts: from 2 to N / 2; each is left out once.
        seed: of which images are in which part.
    """
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))
    pieces = [Statistics.of(features[order[n::parts]], reference.fingerprint) for n in range(parts)]
    root = _root(reference.covariance)
    values = [gaussian_distance(merged(pieces[:n] + pieces[n + 1 :]), reference, root) for n in range(parts)]
    return ((parts - 1) * torch.tensor(values, dtype=torch.float64).var(correction=0)).sqrt().item()


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
    check_widths(a[0], b[0])
    if not 2 <= subset_size <= min(len(a), len(b)):
        raise ValueError(
            f"subsets of {subset_size} images cannot be taken of {len(a)} and of {len(b)}; "
            f"give a subset_size from 2 to {min(len(a), len(b))}"
        )
    values = []
    for _ in range(subsets):
        one, other = (x[torch.randperm(len(x), generator=generator)[:subset_size]] for x in (a, b))
        values.append(_Kernels.of(one, other).distance())
    together = torch.stack(values)
    return together.mean().item(), together.std(correction=0).item()


def kernel_interval(a: Tensor, b: Tensor, *, paired: bool = False) -> tuple[float, Interval]:
    """The squared maximum mean discrepancy of all images, without bias, and its 95 % interval.

    The interval is normal, by each image's influence on the distance, so it counts the chance in both sets. The influences vanish where
    both have one distribution; near there, and for fewer than some hundred images, the interval is a rough one.

    Args:
        a, b: features (N, D) and (M, D), at least two each; they may lie memory-mapped.
        paired: whether image i of one set was made from image i of the other. Such pairs are nearer than chance: they are not compared with
            each other, and each moves the distance as one.

    Raises:
        ValueError: for features of different widths or not finite, for fewer, and for pairs of which one is missing.
    """
    check_widths(a[0], b[0])
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a kernel distance needs at least two images of each set; there are {len(a)} and {len(b)}")
    if paired and len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} images are no pairs; give as many of one set as of the other")
    for features in (a, b):
        check_finite(features)
    kernels = _Kernels.of(a, b, paired)
    distance = kernels.distance().item()
    return distance, normal(distance, kernels.error(paired).item())


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
        scores.append((p * part - torch.special.xlogy(p, p.mean(0))).sum(1).mean().exp())
    together = torch.stack(scores)
    return together.mean().item(), together.std(correction=0).item()


def check_widths(a: Tensor, b: Tensor) -> None:
    """Features (D,) of both sets must be of one width."""
    if len(a) != len(b):
        raise ValueError(f"features of {len(a)} and of {len(b)} numbers have no distance; give both sets to one extractor")


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


class _Kernels(NamedTuple):
    """For each image its mean kernel with the others of its own set, and with those of the other set: (N,) twice, (M,) twice."""

    within_a: Tensor
    across_a: Tensor
    within_b: Tensor
    across_b: Tensor

    @classmethod
    def of(cls, a: Tensor, b: Tensor, paired: bool = False) -> "_Kernels":
        own = _pair_kernels(a, b) if paired else torch.zeros(())
        across_a, across_b = ((sums - own) / (len(x) - paired) for sums, x in zip(_sums(a, b), (b, a), strict=True))
        within_a, within_b = ((_sums(x, x)[0] - _pair_kernels(x, x)) / (len(x) - 1) for x in (a, b))
        return cls(within_a, across_a, within_b, across_b)

    def distance(self) -> Tensor:
        """Binkowski et al. 2018, equation 4: no image is compared with itself."""
        return self.within_a.mean() + self.within_b.mean() - 2 * self.across_a.mean()

    def error(self, paired: bool = False) -> Tensor:
        """The standard error to first order, where an image moves the distance by twice the difference of its mean kernels."""
        a, b = self.within_a - self.across_a, self.within_b - self.across_b
        if paired:
            return 2 * ((a + b).var() / len(a)).sqrt()
        return 2 * (a.var() / len(a) + b.var() / len(b)).sqrt()


def _sums(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of the kernel matrix along its rows (N,) and its columns (M,), a block of it at a time; of one set with itself half of it."""
    rows = torch.zeros(len(a), dtype=torch.float64)
    columns = rows if a is b else torch.zeros(len(b), dtype=torch.float64)
    for i in range(0, len(a), ROWS):
        some = a[i : i + ROWS].double()
        for j in range(i if a is b else 0, len(b), ROWS):
            block = _kernel(some, b[j : j + ROWS].double())
            rows[i : i + ROWS] += block.sum(1)
            if a is not b or i != j:
                columns[j : j + ROWS] += block.sum(0)
    return rows, columns


def _pair_kernels(a: Tensor, b: Tensor) -> Tensor:
    """Of each row with the row of its number: (N,)."""
    return torch.cat([((x.double() * y.double()).mean(1) + 1) ** 3 for x, y in zip(a.split(ROWS), b.split(ROWS), strict=True)])


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    """The cubic kernel of KID, (a b / D + 1)^3: (N, M)."""
    return (a @ b.T / a.shape[1] + 1) ** 3
