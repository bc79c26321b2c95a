"""The paper's networks on a GPU, with random weights: an evaluation, an image, a training step; and other homes' networks.

    python -m benchmarks.gpu
    python -m benchmarks.gpu --only evaluations images
    python -m benchmarks.gpu --bundled    # the small networks of imagen-scenes in their place: whether all of it runs, on any device

Shares are of the quickest matrix product in bfloat16 on the same device, which `benchmarks.ceilings` measures, too. Linear layers in
float8 need torchao and a GPU that multiplies in it. A way that the device cannot take is left out, and the report says why.
"""

import argparse
import gc
import statistics
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from imagen_diffusers import ImagenCascadePipeline, ImagenDDPMScheduler
from imagen_diffusers.models.conditioned_unet import ConditionedUNet
from imagen_diffusers.sampling.network import adapt
from imagen_diffusers.text.encoding import TextEmbedding
from imagen_diffusers.training.losses import LossSettings, draw, stage_loss
from imagen_diffusers.training.optimizers import make_optimizer
from imagen_diffusers.training.run_settings import TrainSettings

from .ceilings import device, machine, matrix_rate
from .side_by_side import HOMES, WIDTHS, compare
from .stages import NETWORKS, inputs, network, work
from .timing import table, times_as_fast, turns

RUNS, TOKENS = 5, 128
WAYS = ("eager", "channels_last", "compiled", "CUDA graphs", "float8 linear layers, compiled")
EVALUATED = (1, 8)  # images
DRAWN, STEPS, GUIDED = (1, 4), (25, 15, 10), (0.2, 0.9)  # images; evaluations of each stage, guided in this part of its steps
WINDOWS = {"unet": 64, "unet_2": 256, "unet_3": 256}  # that the stages are trained on
MOST = 512  # examples of a training step
THEIR_WIDTHS = {"imagen-pytorch": 128, "deepfloyd": 192}  # of its README, and of IF-I-M


def share(flop: float, seconds: float) -> str:
    return f"{100 * flop / seconds / matrix_rate(torch.bfloat16):.0f} %"


def free() -> None:
    """What no name holds any more is gone from the device, graphs included."""
    torch.compiler.reset()
    gc.collect()
    if device().type != "cpu":
        torch.get_device_module(device()).empty_cache()


# --- one evaluation -------------------------------------------------------------------------------------------------------------


def in_float8(unet: nn.Module) -> None:
    """Linear layers whose sides are multiples of 16 multiply in float8, scaled row by row.

    Raises:
        ImportError: without torchao.
    """
    from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, PerRow, quantize_  # pyright: ignore[reportMissingImports]

    def fits(module: nn.Module, _: str) -> bool:
        return isinstance(module, nn.Linear) and module.in_features % 16 == module.out_features % 16 == 0

    quantize_(unet, Float8DynamicActivationFloat8WeightConfig(granularity=PerRow()), filter_fn=fits)


def evaluation(slot: str, way: str, batch_size: int, *, paper: bool) -> Callable[[], Tensor]:
    """A call of the network in bfloat16, with the same weights and inputs in every way."""
    torch.manual_seed(0)
    unet = network(slot, paper=paper)
    with torch.no_grad():
        for p in unet.parameters():
            p.add_(0.01 * torch.randn_like(p))  # layers that start at zero would hide all that comes before them
    unet.to(torch.bfloat16)
    given = inputs(unet, batch_size, tokens=TOKENS)
    given = {k: v.bfloat16() if v.is_floating_point() and v.ndim > 1 else v for k, v in given.items()}
    if way != "eager":
        unet.to(memory_format=torch.channels_last)
    if way.startswith("float8"):
        in_float8(unet)
    if way == "CUDA graphs":
        unet.compile(fullgraph=True, dynamic=False, mode="reduce-overhead")
    elif way.endswith("compiled"):
        unet.compile(fullgraph=True, dynamic=False)
    return lambda: unet(**given).sample


@torch.no_grad()
def of_network(slot: str, batch_size: int, ways: Iterable[str], runs: int, *, paper: bool) -> tuple[list[list[str]], list[str]]:
    """Rows of those ways that the device takes, and why it did not take others."""
    calls: dict[str, Callable[[], Tensor]] = {}
    made: dict[str, Tensor] = {}
    left_out = []
    for way in ways:
        try:
            call = evaluation(slot, way, batch_size, paper=paper)
            made[way] = call().float().clone()  # CUDA graphs write the next image where this one is
        except (ImportError, RuntimeError, NotImplementedError) as error:
            left_out.append(f"Left out: {slot}, {way}, {batch_size} images: {str(error).strip().splitlines()[0]}")
        else:
            calls[way] = call
    seconds = turns(calls, runs, title=f"{slot}, {batch_size} images")
    flop, rows = work(slot, batch_size, paper=paper, tokens=TOKENS), []
    first = next(iter(calls), "")
    for way in calls:
        middle, far = statistics.median(seconds[way]), ((made[way] - made[first]).norm() / made[first].norm()).item()
        cells = [f"{1e3 * middle:.1f}", f"{times_as_fast(seconds, first, way):.2f}", share(flop, middle), f"{far:.1e}"]
        rows.append([slot, way, str(batch_size), *cells])
    return rows, left_out


def evaluations(*, paper: bool = True, batches: Iterable[int] = EVALUATED, ways: Iterable[str] = WAYS, runs: int = RUNS) -> str:
    """Each network, number of images and way; differences are those of the output from the first way's, as parts of its norm."""
    rows, left_out = [], []
    for slot in NETWORKS:
        for batch_size in batches:
            more, why = of_network(slot, batch_size, ways, runs, paper=paper)
            rows, left_out = rows + more, left_out + why
            free()
    head = ["network", "way", "images", "ms", "times as fast", "of the matrix rate", "difference"]
    return "\n\n".join([table(head, rows, words=2), *left_out])


# --- a whole image --------------------------------------------------------------------------------------------------------------


def cascade(*, paper: bool) -> ImagenCascadePipeline:
    """All stages in bfloat16, compiled, for text that is encoded already."""
    parts = {slot: network(slot, paper=paper).to(torch.bfloat16).to(memory_format=torch.channels_last) for slot in NETWORKS}
    curves = {slot.replace("unet", "scheduler"): ImagenDDPMScheduler(thresholding=True) for slot in NETWORKS}
    told = {"num_inference_steps": STEPS, "guidance_interval": (GUIDED,) * len(STEPS)}
    pipe = ImagenCascadePipeline(**parts, **curves, **told)
    pipe.set_progress_bar_config(disable=True)
    pipe.compile()
    return pipe


def seconds_an_image(counts: Iterable[int], runs: int, *, paper: bool) -> list[list[str]]:
    """Rows by how many images are drawn at a time."""
    pipe, rows = cascade(paper=paper), []
    text = torch.randn(1, TOKENS, pipe.unet.config["encoder_hid_dim"], device=device(), dtype=torch.bfloat16)  # pyright: ignore
    for count in counts:
        given = {"prompt_embeds": text, "num_images_per_prompt": count, "output_type": "pt"}
        seconds = turns({"": partial(pipe, **given)}, runs, title=f"cascade, {count} at a time")[""]
        rows.append([str(count), *(f"{of(seconds) / count:.2f}" for of in (statistics.median, min, max))])
    return rows


def images(*, paper: bool = True, counts: Iterable[int] = DRAWN, runs: int = RUNS) -> str:
    """Seconds of an image of the whole cascade after its text is encoded."""
    steps, rows = "/".join(map(str, STEPS)), seconds_an_image(counts, runs, paper=paper)
    free()
    said = f"{steps} evaluations, guided from {GUIDED[0]} to {GUIDED[1]} of each stage's steps, compiled, text encoded already."
    return f"{said}\n\n{table(['images at a time', 'seconds an image', 'from', 'to'], rows)}"


# --- a training step ------------------------------------------------------------------------------------------------------------


def step(unet: ConditionedUNet, batch_size: int, side: int) -> Callable[[], Any]:
    """A step of training under bfloat16 autocast, as `training/loop.py` takes it but for data and averages."""
    settings = TrainSettings(output_dir=Path(), max_train_steps=1)
    optimizer, network = make_optimizer(unet, settings), adapt(unet)
    curve, loss = ImagenDDPMScheduler().log_snr.to(device()), LossSettings(prediction_type="epsilon")
    pictures = torch.rand(batch_size, 3, side, side, device=device()) * 2 - 1
    small = torch.nn.functional.avg_pool2d(pictures, 4) if unet.has_low_res else None
    mask = torch.ones(batch_size, TOKENS, dtype=torch.bool, device=device())
    text = TextEmbedding(torch.randn(batch_size, TOKENS, unet.config["encoder_hid_dim"], device=device()), mask)
    examples = range(batch_size)

    def take() -> None:
        draws = draw(pictures.shape[1:], examples, examples, loss, seed=0, device=device(), log_snr_table=curve)
        with torch.autocast(device().type, torch.bfloat16):
            told = stage_loss(network, pictures, draws=draws, log_snr_table=curve, settings=loss, text=text, low_res=small)
        told.losses.mean().backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), settings.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return take


def largest_step(slot: str, side: int, most: int, runs: int, *, paper: bool) -> list[str]:
    """Examples of the largest step that the memory holds, examples a second, and their share of the matrix rate."""
    unet = network(slot, paper=paper).train().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    unet.compile(dynamic=False)
    flop = 3 * work(slot, 1, paper=paper, side=side, tokens=TOKENS)  # a backward pass is the work of two forward passes
    examples, told = 1, ["0", "", ""]
    while examples <= most:
        try:
            seconds = statistics.median(turns({"": step(unet, examples, side)}, runs, title=f"{slot}, a step of {examples}")[""])
        except torch.OutOfMemoryError:
            break
        told = [str(examples), f"{examples / seconds:.1f}", share(examples * flop, seconds)]
        examples *= 2
        gc.collect()
    return told


def training(*, paper: bool = True, most: int = MOST, runs: int = RUNS) -> str:
    """Steps of each stage with twice the examples, and twice those, as long as the memory holds them."""
    rows = []
    for slot, side in WINDOWS.items():
        rows.append([f"{slot} at {side}px", *largest_step(slot, side, most, runs, paper=paper)])
        free()
    return table(["network", "examples a step", "a second", "of the matrix rate"], rows)


# --- other homes ----------------------------------------------------------------------------------------------------------------


def side_by_side(*, paper: bool = True, runs: int = RUNS) -> str:
    """imagen-pytorch's `sample` and diffusers' IF pipelines beside this package's, by `benchmarks.side_by_side` on the device."""
    widths = THEIR_WIDTHS if paper else WIDTHS
    return "\n\n".join(compare(home, widths[home], runs, device().type) for home in HOMES)


PARTS: dict[str, tuple[str, Callable[..., str]]] = {
    "evaluations": ("One evaluation of each network", evaluations),
    "images": ("The whole cascade", images),
    "training": ("A step of training", training),
    "side_by_side": ("Beside imagen-pytorch and diffusers' IF pipelines", side_by_side),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--bundled", action="store_true", help="the networks of imagen-scenes in place of the paper's")
    parser.add_argument("--runs", type=int, default=RUNS)
    args = parser.parse_args()
    print(f"{machine()}, {matrix_rate(torch.bfloat16) / 1e12:.1f} TFLOP/s in a matrix product in bfloat16")
    for name in args.only:
        title, part = PARTS[name]
        print(f"\n## {title}\n\n{part(paper=not args.bundled, runs=args.runs)}", flush=True)


if __name__ == "__main__":
    main()
