"""Muon for the matrices of a network, AdamW for the rest, as one optimizer with one state and one schedule.

Muon (Jordan et al., 2024) replaces the update of a matrix by the nearest matrix whose singular values are all one, up to a
factor: directions that gradients seldom take move as far as those they take always. A convolution is the matrix (out, in k k).
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from imagen_diffusers.models.fastest_dtype import fastest_dtype

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan's coefficients: steep at zero, so that five iterations are enough
ITERATIONS = 5
TOGETHER = 2**22  # numbers that are updated at once: a step needs a few times their memory for a moment
EPSILON = 1e-7  # a gradient of norm zero stays zero


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon and AdamW, each over its own weights.

    The update of a matrix has the size AdamW's would have: 0.2 sqrt(max(rows, columns)) times one with singular values near one
    (Liu et al., 2025, equation 4), which is `torch.optim.Muon(adjust_lr_fn="match_rms_adamw")`.

    Args:
        matrices: weights of two dimensions or more; the first is the rows, all others are the columns.
        others: weights of any shape.
        lr: of the matrices.
        adamw_lr: of the others.
        momentum: of the matrices, Nesterov's.
        betas, eps: of AdamW.
        weight_decay: decoupled, of both.

    Raises:
        ValueError: for a matrix without columns.
    """

    def __init__(
        self,
        matrices: Iterable[Tensor],
        others: Iterable[Tensor],
        *,
        lr: float = 1e-3,
        adamw_lr: float = 4e-4,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        groups: list[dict[str, Any]] = [
            {"params": list(matrices), "lr": lr, "momentum": momentum, "weight_decay": weight_decay},
            {"params": list(others), "lr": adamw_lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "fused": True},
        ]
        for p in groups[0]["params"]:
            if p.ndim < 2:
                raise ValueError(f"Muon got a weight of shape {tuple(p.shape)}; it takes two dimensions or more, AdamW takes the rest")
        super().__init__([g for g in groups if g["params"]], {"lr": lr})  # which polynomial schedules look up

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's own; it moves AdamW's counts of steps to the weights where a group is `fused`, which earlier checkpoints leave out."""
        told = [group if "momentum" in group else {**group, "fused": True} for group in state_dict["param_groups"]]
        super().load_state_dict({**state_dict, "param_groups": told})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every weight that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if weights:
                (self._step_muon if "momentum" in group else self._step_adamw)(group, weights)
        return loss

    def _step_muon(self, group: dict[str, Any], weights: list[Tensor]) -> None:
        for p in weights:
            if not self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        for alike in _by_shape(weights):  # many matrices of a network have one shape, and are one product
            buffers = [self.state[p]["momentum_buffer"] for p in alike]
            grads = [p.grad for p in alike if p.grad is not None]
            for buffer, grad in zip(buffers, grads, strict=True):
                buffer.lerp_(grad, 1 - group["momentum"])
            ahead = torch.stack([g.flatten(1) for g in grads]).lerp(torch.stack([b.flatten(1) for b in buffers]), group["momentum"])
            size = 0.2 * math.sqrt(max(ahead.shape[1:]))
            for p, update in zip(alike, orthogonalize(ahead), strict=True):
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update.view(p.shape), alpha=-group["lr"] * size)

    def _step_adamw(self, group: dict[str, Any], weights: list[Tensor]) -> None:
        for p in weights:
            if not self.state[p]:
                zeros = {name: torch.zeros_like(p) for name in ("exp_avg", "exp_avg_sq")}
                self.state[p].update(step=torch.tensor(0.0, device=p.device), **zeros)
        states = [self.state[p] for p in weights]
        adamw(
            weights,
            [p.grad for p in weights if p.grad is not None],
            [s["exp_avg"] for s in states],
            [s["exp_avg_sq"] for s in states],
            [],
            [s["step"] for s in states],
            fused=True,  # one pass over the weights
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def _by_shape(weights: list[Tensor]) -> list[list[Tensor]]:
    """Those of one shape as matrices together, `TOGETHER` numbers and no more unless one has more."""
    alike: dict[tuple[int, int], list[Tensor]] = {}
    for p in weights:
        alike.setdefault((p.shape[0], p.numel() // p.shape[0]), []).append(p)
    parts = []
    for (rows, columns), some in alike.items():
        count = max(1, TOGETHER // (rows * columns))
        parts += [some[i : i + count] for i in range(0, len(some), count)]
    return parts


def orthogonalize(matrices: Tensor) -> Tensor:
    """Matrices (..., rows, columns) with the singular vectors of these and singular values near one: Newton-Schulz.

    In bfloat16, which is exact enough (Jordan et al., 2024), or in float32 on a processor that multiplies in it more quickly: where
    bfloat16 is emulated, these products took ten times as long as all else in a step.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = (matrices.mT if tall else matrices).to(fastest_dtype(matrices.device.type))
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=EPSILON)  # singular values at most one, as the iteration needs
    shape, x = x.shape, x.reshape(-1, *x.shape[-2:])
    a, b, c = NEWTON_SCHULZ
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    x = x.reshape(shape)
    return (x.mT if tall else x).to(matrices.dtype)
