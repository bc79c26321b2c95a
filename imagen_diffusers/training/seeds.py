"""Seeds of all that is random in a run, as functions of the run's own and of a place in it."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_of(*numbers: int) -> int:
    """One 64-bit seed of several numbers, so that neighbouring numbers share nothing (numpy's `SeedSequence`)."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


@contextmanager
def global_state_from(seed: int, device: torch.device) -> Iterator[None]:
    """What takes no generator, as dropout, depends inside the block on `seed` alone; the global state is put back at its end.

    Args:
        seed: of 64 bits.
        device: where it computes, besides the CPU.
    """
    accelerators = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(accelerators, device_type="cuda" if device.type == "cpu" else device.type):
        torch.default_generator.manual_seed(seed)  # `torch.manual_seed` would reach devices of other processes, too
        for used in accelerators:
            torch.get_device_module(used).manual_seed(seed)
        yield
