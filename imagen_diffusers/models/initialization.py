"""First weights of new layers, as a function of a seed."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def initialized_from(seed: int) -> Iterator[None]:
    """Layers made inside the block have weights that depend on `seed` alone, and so are the same in all processes of a run.

    torch draws first weights from its global state and takes no generator for them; that state is put back at the end of the block.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # of the CPU, where new layers are made; `torch.manual_seed` would reach GPUs, too
        yield
