"""Where the time of imagen-pytorch's networks goes as this package runs them, layer by layer, and what each layer takes alone.

    make .venv/installed-reference
    .venv/bin/python -m benchmarks.layers

The networks and the call are those of `benchmarks.side_by_side`, in the dtype that the processor is fastest in. Alone a layer runs again
and again on one input, out of the caches, and its quickest call counts; in its network it meets values that lie in memory. Of a processor:
a GPU does not wait for its layers, so that their times say nothing there.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from imagen_diffusers import ImagenCascadePipeline
from imagen_diffusers.models.fastest_dtype import fastest_dtype

from .ceilings import convolution_rate, machine, rates
from .side_by_side import GUIDANCE, SEED, STEPS, WIDTHS, channels_last, text, write_imagen_pytorch
from .timing import table, turns

SHOWN = 8  # layers of each network, those that take longest
RUNS = 5


@dataclass
class Layer:
    """All calls of a network's layers of one kind and shape: how many, their seconds in all, and the operations of one."""

    module: nn.Module
    given: Tensor
    flop: int
    calls: int = 0
    seconds: float = 0.0

    @property
    def name(self) -> str:
        size = "x".join(map(str, self.given.shape[2:] if isinstance(self.module, nn.Conv2d) else self.given.shape[:-1]))
        if isinstance(self.module, nn.Conv2d):
            kernel = "x".join(map(str, self.module.kernel_size))
            return f"{kernel} convolution, {self.module.in_channels} to {self.module.out_channels} channels, {size}"
        return f"linear, {self.module.in_features} to {self.module.out_features}, {size}"

    def alone(self) -> float:
        """Seconds of one call by itself."""
        return min(turns({"": lambda: self.module(self.given)}, RUNS, leave=False)[""])


def work(module: nn.Module, out: Tensor) -> int:
    """Operations of one call."""
    assert isinstance(module, nn.Conv2d | nn.Linear)
    return 2 * out.numel() * module.weight[0].numel()


@contextmanager
def watched(network: nn.Module) -> Iterator[dict[tuple, Layer]]:
    """Every call of a convolution and a linear layer within the block, by shapes."""
    layers: dict[tuple, Layer] = {}
    begun: list[float] = []

    def note(module, args, out) -> None:
        passed, x = time.perf_counter() - begun.pop(), args[0]
        key = type(module), x.shape, module.weight.shape, getattr(module, "stride", None)
        layer = layers.setdefault(key, Layer(module, x, work(module, out)))
        layer.calls, layer.seconds = layer.calls + 1, layer.seconds + passed

    handles = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            handles.append(module.register_forward_pre_hook(lambda *_: begun.append(time.perf_counter())))
            handles.append(module.register_forward_hook(note))
    try:
        yield layers
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def of_stage(pipe: ImagenCascadePipeline, number: int, dtype: torch.dtype) -> str:
    """A table of one stage's layers in one call of the pipeline."""
    network, spent = pipe.unet_of(number), [0.0]
    forward = network.forward

    def timed(*args, **kwargs):
        start = time.perf_counter()
        out = forward(*args, **kwargs)
        spent[0] += time.perf_counter() - start
        return out

    call = {"prompt_embeds": text(), "guidance_scale": GUIDANCE, "output_type": "pt", "stop_at": number}
    pipe(**call, generator=torch.Generator().manual_seed(SEED))  # warms up
    network.forward = timed
    with watched(network) as layers:
        pipe(**call, generator=torch.Generator().manual_seed(SEED))
    del network.forward
    whole, best = spent[0], convolution_rate(dtype)
    rows, ordered = [], sorted(layers.values(), key=lambda layer: -layer.seconds)
    for layer in ordered[:SHOWN]:
        inside, alone = layer.calls * layer.flop / layer.seconds, layer.flop / layer.alone()
        rows.append([layer.name, str(layer.calls), f"{100 * layer.seconds / whole:.0f} %", f"{inside / 1e9:.0f}", f"{alone / 1e9:.0f}"])
        rows[-1] += [f"{100 * alone / best:.0f} %"]
    for kind, told in ((nn.Conv2d, "other convolutions"), (nn.Linear, "other linear layers")):
        rest = [layer for layer in ordered[SHOWN:] if isinstance(layer.module, kind)]
        if rest:
            seconds, flop = sum(layer.seconds for layer in rest), sum(layer.calls * layer.flop for layer in rest)
            calls = sum(layer.calls for layer in rest)
            rows.append([told, str(calls), f"{100 * seconds / whole:.0f} %", f"{flop / seconds / 1e9:.0f}", "", ""])
    inside = sum(layer.seconds for layer in ordered)
    rows.append(["all else", "", f"{100 * (whole - inside) / whole:.0f} %", "", "", ""])
    head = ["layer", "calls", "of the time", "GFLOP/s", "alone", "of the quickest convolution"]
    return f"Stage {number}, {whole:.2f} s of its network in {STEPS} steps:\n\n{table(head, rows)}"


def report() -> str:
    dtype = fastest_dtype("cpu")
    with tempfile.TemporaryDirectory() as place:
        write_imagen_pytorch(Path(place), WIDTHS["imagen-pytorch"])
        pipe = channels_last(ImagenCascadePipeline.from_pretrained(Path(place) / "imagen", dtype=dtype))
    tables = "\n\n".join(of_stage(pipe, number, dtype) for number in pipe.stage_numbers)
    return f"imagen-pytorch's networks in {str(dtype).removeprefix('torch.')}, channels_last.\n\n{tables}\n\n{rates(dtype)}"


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(f"{machine()}\n\n{report()}")


if __name__ == "__main__":
    main()
