"""The processes of a run: begun once, ended once by whoever began them, and agreed on when to stop."""

import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType, TracebackType
from typing import Any, TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState, is_initialized
from accelerate.utils import DistributedType, broadcast_object_list, parse_flag_from_env
from torch import Tensor

from .run_settings import TrainSettings

logger = logging.getLogger(__name__)
Decided = TypeVar("Decided")

STOPPING = (signal.SIGINT, signal.SIGTERM)
HANGUP = getattr(signal, "SIGHUP", None)  # of a terminal that is closed; Windows has none
# How long processes wait for one another. The main one generates and uploads while the others wait in their next reduction,
# which NCCL would end, and the run with it, after 10 minutes. Of a process that is gone the launcher knows sooner.
PATIENCE = timedelta(hours=6)


def this_process() -> PartialState:
    """This process among those that the launcher started; the first call joins them, for `PATIENCE`.

    Accelerate's own `PartialState()` overlooks a launch on processors (ACCELERATE_USE_CPU), which only `Accelerator()` reads.
    """
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=PATIENCE)


@contextmanager
def process_group() -> Iterator[PartialState]:
    """All processes that the launcher started, joined from here to the end of the block.

    Blocks may be nested: the outermost one begins the group and ends it. `train_stage` opens one of its own, so a program that
    trains several stages opens one around all of them. After an error nothing is ended: other processes may still wait for this one,
    and the launcher ends them.

    Raises:
        ValueError: when an earlier block of this program has ended the group, which cannot be begun again.
    """
    began = not torch.distributed.is_initialized()
    state = this_process()
    if state.use_distributed and not torch.distributed.is_initialized():
        raise ValueError(
            "the process group of this program has ended and cannot begin again; put everything that the processes do together "
            "into one `with process_group():`"
        )
    try:
        yield state
    except SystemExit:  # all processes leave together
        if began:
            state.destroy_process_group()
        raise
    if began:
        state.destroy_process_group()


def check_precision(mixed_precision: str | None) -> None:
    """See that no Accelerator of this program has another precision: accelerate keeps one for all of them.

    Args:
        mixed_precision: as in `TrainSettings`.

    Raises:
        ValueError: naming both.
    """
    if mixed_precision is None or not is_initialized():
        return
    there = AcceleratorState()
    if there.distributed_type != DistributedType.DEEPSPEED and there.mixed_precision != mixed_precision:
        raise ValueError(
            f'mixed_precision is "{mixed_precision}", and an Accelerator that this program has made, such as that of an earlier training, '
            f'has "{there.mixed_precision}": accelerate keeps one precision for a program, so give the same, or start another program'
        )


def tell_deepspeed(accelerator: Accelerator, settings: TrainSettings) -> None:
    """Give DeepSpeed, where it is, what it would otherwise take from a configuration file, or from loaders that accelerate prepares."""
    plugin = getattr(accelerator.state, "deepspeed_plugin", None)
    if plugin is None:
        return
    accelerator.gradient_accumulation_steps = settings.gradient_accumulation_steps
    plugin.deepspeed_config |= {
        "train_micro_batch_size_per_gpu": settings.train_batch_size,
        "gradient_accumulation_steps": settings.gradient_accumulation_steps,
        "gradient_clipping": settings.max_grad_norm,
    }


def as_main_says(value: Any) -> Any:
    """The main process's value, on all processes, which must ask together."""
    (said,) = broadcast_object_list([value])
    return said


def place_in_group() -> tuple[int, int]:
    """Which of how many processes that compute together this one is; no group is begun by asking."""
    group = torch.distributed
    return (group.get_rank(), group.get_world_size()) if group.is_available() and group.is_initialized() else (0, 1)


def added_up(values: Tensor, device: torch.device) -> Tensor:
    """Of all processes, which must ask together; by way of the device that they compute on, on the CPU in the end."""
    if place_in_group()[1] == 1:
        return values
    values = values.to(device, copy=True)
    torch.distributed.all_reduce(values)
    return values.cpu()


def main_decides(check: Callable[[], Decided]) -> Decided:
    """What `check` returns to the main process, which alone runs it, on all processes, which must ask together.

    Raises:
        ValueError, OSError, ImportError: on all of them, where it raised one.
    """
    decided, refusal = None, None
    if this_process().is_main_process:
        try:
            decided = check()
        except (ValueError, OSError, ImportError) as error:
            refusal = error
    decided, told = as_main_says((decided, None if refusal is None else (_plain(refusal), str(refusal))))
    if refusal is not None:
        raise refusal
    if told is not None:
        kind, said = told
        raise kind(said)
    return decided


def _plain(error: Exception) -> type[Exception]:
    """The kind of an error which one sentence makes again."""
    return next(kind for kind in (ValueError, OSError, ImportError) if isinstance(error, kind))


class StopFlag:
    """Whether a run ends before its last step: after SIGINT, SIGTERM or SIGHUP, or at its time limit, on any of its processes.

    While the block is open, these signals are only noted, so that a step and its checkpoint are finished; SIGINT sent twice interrupts
    at once. Signals reach the main thread of a program alone, so in any other thread the time limit alone counts.

    Args:
        accelerator: of the run.
        time_limit: in seconds from the beginning of the block; infinite for none.
    """

    def __init__(self, accelerator: Accelerator, time_limit: float = math.inf):
        self.accelerator, self.time_limit = accelerator, time_limit
        self.signal = 0  # that all processes know of
        self._received, self._before = 0, {}

    def __enter__(self) -> "StopFlag":
        self._end = time.monotonic() + self.time_limit
        if threading.current_thread() is threading.main_thread():
            heard = STOPPING if HANGUP is None or signal.getsignal(HANGUP) != signal.SIG_DFL else (*STOPPING, HANGUP)  # nohup ignores it
            self._before: dict[int, Any] = {number: signal.signal(number, self._note) for number in heard}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def raised(self) -> bool:
        """Whether any process was told to stop; all must ask together, and all get the same answer."""
        mine = torch.tensor([[self._received, time.monotonic() > self._end]], device=self.accelerator.device)
        self.signal, late = self.accelerator.gather(mine).amax(0).tolist()  # pyright: ignore[reportAttributeAccessIssue]
        return bool(self.signal or late)

    def leave_if_signalled(self, written: str) -> None:
        """End the program, on all processes, where a signal asked for it; `written` says what there is to go on from."""
        if self.signal:
            logger.warning(f"stopped by {signal.Signals(self.signal).name}; {written}")
            raise SystemExit(128 + self.signal)  # as shells count

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == self._received == signal.SIGINT:
            raise KeyboardInterrupt
        self._received = number
