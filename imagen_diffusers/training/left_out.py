"""Steps whose gradients are no numbers: they are left out and told of, and too many in a row end the run."""

import logging
import math
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor

logger = logging.getLogger(__name__)

# No setting switches this off: nothing can be learned from such a step, and one image in a million that overflows should not end weeks of
# training. A network that has diverged leaves out every step from then on, and ends at this number; fp16, whose scale of 65536 is halved
# at each step that it leaves out, has found its own long before.
MOST_IN_A_ROW = 100


class LeftOut:
    """Decides whether a step was left out, as one is where the norm of its gradients is not finite.

    Weights, moments, averages and learning rate are then as before it, as after a step that the scaler of fp16 leaves out, which counts
    as one, too. The step still counts among those of the run, and its examples as seen: what a step holds follows from its number alone.
    The norm is that of all processes' gradients together, so all of them decide alike.

    Args:
        accelerator: of the run.
        folder: of the run, which errors name.
        steps: of the run, which ends by an error, too, where not one of those before it was taken, but for fp16, which may be at its
            scale still.
    """

    def __init__(self, accelerator: Accelerator, folder: Path, steps: int):
        self.accelerator, self.folder = accelerator, folder
        self.fp16 = accelerator.mixed_precision == "fp16"
        self.engine = accelerator.distributed_type == DistributedType.DEEPSPEED  # takes a step inside of the backward pass
        self.steps = steps
        self.go_on(0, 0)

    def go_on(self, start: int, in_a_row: int) -> None:
        """Begin at a step, the last ones before which were left out; a checkpoint holds how many."""
        self.in_a_row = in_a_row
        self.most = MOST_IN_A_ROW if self.fp16 else min(MOST_IN_A_ROW, in_a_row + self.steps - start)

    def check_before(self, step: int, losses: Tensor) -> None:
        """Refuse losses of all processes that are not finite, by a `FloatingPointError`, where an engine would take the step with them."""
        if self.engine and not losses.isfinite().all():
            raise FloatingPointError(f"a loss at step {step + 1} is not finite: {self._advice()}")

    def may_take(self, norm: float | None) -> bool:
        """Whether the optimizer is asked for the step. The scaler of fp16 always is: it leaves a step out on its own, and learns by it."""
        return norm is None or math.isfinite(norm) or self.accelerator.scaler is not None

    def note(self, step: int, norm: float | None, losses: Tensor) -> bool:
        """Whether this step, which is over, was left out; tells of it.

        Args:
            step: its number, from 0.
            norm: of its gradients; None where an engine does not say.
            losses: of its examples, on all processes.

        Raises:
            FloatingPointError: on all processes, after too many in a row, and where an engine took a step that is none.
        """
        by_another = self.accelerator.optimizer_step_was_skipped  # not of a fused optimizer, which leaves fp16's steps out on its own
        if not by_another and (norm is None or math.isfinite(norm)):
            self.in_a_row = 0
            return False
        if not by_another and self.engine:
            raise FloatingPointError(f"the norm of the gradients at step {step + 1} is {norm}: {self._advice()}")
        self.in_a_row += 1
        bad = int((~losses.isfinite()).sum())
        if self.accelerator.is_main_process and (bad or not self.fp16):  # fp16 that finds its scale is no news
            logger.warning(
                f"step {step + 1} is left out: the norm of its gradients is {norm}, and {bad} of its {len(losses)} losses are not finite; "
                "weights, averages and learning rate stay as they were"
            )
        if self.in_a_row >= self.most:
            said = f"the last {self.in_a_row} steps, up to step {step + 1}, were left out, since their gradients are not finite"
            raise FloatingPointError(f"{said}: {self._advice()}")
        return True

    def _advice(self) -> str:
        return (
            "lower the learning rate, use bf16 in place of fp16, or look for images and text that are not finite, and resume from a "
            f"checkpoint, which are untouched in {self.folder}"
        )
