"""The paper's networks on a GPU, with random weights: an evaluation, an image, a training step; and other homes' networks.

    make .venv/installed-reference     # imagen-pytorch, for the last part
    .venv/bin/python -m benchmarks.gpu
    .venv/bin/python -m benchmarks.gpu --only evaluations --network unet    # compiling takes minutes: a part of it at a time
    .venv/bin/python -m benchmarks.gpu --bundled    # the small networks of imagen-scenes: whether all of it runs, on any device

Shares are of the quickest matrix product in bfloat16 on the same device. Linear layers in float8 need torchao and a GPU that multiplies in
it. What the device cannot do is left out, and the report says why; each table is printed as soon as it is measured.
"""

import argparse
import os
import statistics
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging
from torch import Tensor, nn

from examples.scenes.device import device_type
from imagen_diffusers import ImagenCascadePipeline, ImagenDDPMScheduler
from imagen_diffusers.models.conditioned_unet import ConditionedUNet
from imagen_diffusers.models.graphs import own_graphs
from imagen_diffusers.sampling.network import adapt
from imagen_diffusers.text.encoding import TextEmbedding
from imagen_diffusers.training.losses import LossSettings, draw, stage_loss
from imagen_diffusers.training.optimizers import make_optimizer
from imagen_diffusers.training.run_settings import TrainSettings

from . import stages
from .ceilings import device, free, machine, matrix_rate
from .side_by_side import HOMES, WIDTHS, awake, compare
from .solvers import evaluations as evaluations_of
from .stages import NETWORKS, inputs, work
from .timing import DEVICE, table, times_as_fast, turns

TOKENS = 128
WAYS = ("eager", "channels_last", "compiled", "CUDA graphs", "float8 linear layers, compiled")
COMPILED = {"fullgraph": True, "dynamic": False}
STEPS, GUIDED = (25, 15, 10), (0.2, 0.9)  # of each stage, and in which part of them it is guided
WINDOWS = {"unet": 64, "unet_2": 256, "unet_3": 256}  # that the stages are trained on
THEIR_WIDTHS = {"imagen-pytorch": 128, "deepfloyd": 192}  # of its larger super-resolution network, and of IF-I-M
# Of what a device cannot do or hold; processes of their own that end so raise the last.
FAILURES = (ImportError, RuntimeError, NotImplementedError, AssertionError, subprocess.CalledProcessError)


@dataclass(frozen=True)
class Plan:
    """What is measured: which networks, at how many images, how often, and the largest training step that is tried."""

    paper: bool = True
    slots: tuple[str, ...] = tuple(NETWORKS)
    evaluated: tuple[int, ...] = (1, 8)
    drawn: tuple[int, ...] = (1, 4)
    most: int = 512
    runs: int = 5


def network(slot: str, plan: Plan) -> ConditionedUNet:
    """With the same weights each time, none of them zero: layers that start so would hide what comes before them, and are quicker."""
    torch.manual_seed(0)
    return awake(stages.network(slot, paper=plan.paper))


def share(flop: float, seconds: float) -> str:
    return f"{100 * flop / seconds / matrix_rate(torch.bfloat16):.0f} %"


def reason(error: BaseException) -> str:
    """An error in a line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def attempt(name: str, measure: Callable[[], str]) -> str:
    """What is measured, or why it could not be; nothing of it stays on the device."""
    try:
        return measure()
    except FAILURES as error:
        return f"Left out: {name} ({reason(error)})"
    finally:
        free()


# --- one evaluation -------------------------------------------------------------------------------------------------------------


def in_float8(unet: nn.Module) -> None:
    """Linear layers whose sides are multiples of 16 multiply in float8, scaled row by row.

    Raises:
        ImportError: without torchao.
        AssertionError: on a device that does not multiply in float8.
    """
    from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, PerRow, quantize_  # pyright: ignore[reportMissingImports]

    def fits(module: nn.Module, _: str) -> bool:
        return isinstance(module, nn.Linear) and module.in_features % 16 == module.out_features % 16 == 0

    # Without inductor's settings, which would hold for all that is compiled after it.
    quantize_(unet, Float8DynamicActivationFloat8WeightConfig(granularity=PerRow(), set_inductor_config=False), filter_fn=fits)


def evaluation(slot: str, way: str, images: int, plan: Plan) -> Callable[[], Tensor]:
    """A call of the network in bfloat16, with the same weights and inputs in every way."""
    unet = network(slot, plan).to(torch.bfloat16)
    given = inputs(unet, images, tokens=TOKENS)
    given = {k: v.bfloat16() if v.is_floating_point() and v.ndim > 1 else v for k, v in given.items()}
    if way in ("eager", "channels_last"):
        given.pop("encoder_attention_mask", None)  # as the pipeline does where no prompt is padded and nothing is compiled
    if way != "eager":
        unet.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if way.startswith("float8"):
        in_float8(unet)
    if way == "CUDA graphs":
        if device().type != "cuda":
            raise NotImplementedError(f"there are none on {device().type}")
        unet.compile(**COMPILED, mode="reduce-overhead")
    elif way.endswith("compiled"):
        unet.compile(**COMPILED)
    return lambda: unet(**given).sample


@torch.no_grad()
def ways_of(slot: str, images: int, plan: Plan) -> str:
    """A table of the ways that the device can take; differences are those of the output from the first way's, as parts of its norm."""
    calls: dict[str, Callable[[], Tensor]] = {}
    made: dict[str, Tensor] = {}
    left_out = []
    for way in WAYS:
        try:
            call = evaluation(slot, way, images, plan)
            made[way] = call().float().clone()  # CUDA graphs write the next image where this one is
        except FAILURES as error:
            left_out.append(f"Left out: {way} ({reason(error)})")
        else:
            calls[way] = call
    seconds = turns(calls, plan.runs, title=f"{slot}, {images} images")
    flop, rows, first = images * work(slot, 1, paper=plan.paper, tokens=TOKENS), [], next(iter(calls), "")
    for way in calls:
        middle, far = statistics.median(seconds[way]), ((made[way] - made[first]).norm() / made[first].norm()).item()
        rows.append([way, f"{1e3 * middle:.1f}", f"{times_as_fast(seconds, first, way):.2f}", share(flop, middle), f"{far:.1e}"])
    head = ["way", "ms", "times as fast", "of the matrix rate", "difference"]
    return "\n\n".join([f"{slot}, batch of {images}:", table(head, rows), *left_out])


def evaluations(plan: Plan) -> Iterator[str]:
    """A table for each network and number of images."""
    for slot in plan.slots:
        for images in plan.evaluated:
            yield attempt(f"{slot}, batch of {images}", partial(ways_of, slot, images, plan))


# --- a whole image --------------------------------------------------------------------------------------------------------------


def cascade(plan: Plan) -> ImagenCascadePipeline:
    """All stages in bfloat16, compiled, for text that is encoded already."""
    parts: dict[str, Any] = {slot: network(slot, plan).to(torch.bfloat16).to(memory_format=torch.channels_last) for slot in NETWORKS}  # pyright: ignore[reportCallIssue]
    parts |= {slot.replace("unet", "scheduler"): ImagenDDPMScheduler(thresholding=True) for slot in NETWORKS}
    pipe = ImagenCascadePipeline(**parts, num_inference_steps=STEPS, guidance_interval=(GUIDED,) * len(STEPS))
    pipe.set_progress_bar_config(disable=True)
    pipe.compile()
    return pipe


def images(plan: Plan) -> Iterator[str]:
    """Seconds of an image of the whole cascade after its text is encoded, its noise included."""
    yield attempt("cascade", partial(seconds_an_image, plan))


def seconds_an_image(plan: Plan) -> str:
    """A table by how many are drawn at a time."""
    pipe = cascade(plan)
    text = torch.randn(1, TOKENS, pipe.unet.config["encoder_hid_dim"], device=device(), dtype=torch.bfloat16)  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
    scales, steps = pipe.config["guidance_scale"], "/".join(map(str, STEPS))
    said = (
        f"{steps} steps, guidance {'/'.join(map(str, scales))} from {GUIDED[0]} to {GUIDED[1]} of them (1 is none), which is "
        f"{evaluations_of(pipe, len(STEPS))} evaluations of an image; compiled, text encoded already, noise made by the processor."
    )
    rows = []
    for count in plan.drawn:
        given = {"prompt_embeds": text, "num_images_per_prompt": count, "output_type": "pt"}
        seconds = turns({"": partial(pipe, **given)}, plan.runs, title=f"cascade, {count} at a time")[""]
        rows.append([str(count), *(f"{of(seconds) / count:.2f}" for of in (statistics.median, min, max))])
    return f"{said}\n\n{table(['images at a time', 'seconds an image', 'from', 'to'], rows)}"


# --- a training step ------------------------------------------------------------------------------------------------------------


def step(unet: ConditionedUNet, examples: int, side: int) -> Callable[[], Any]:
    """A step of training under bfloat16 autocast, as `training/loop.py` takes it but for data, averages and its checks of numbers."""
    settings = TrainSettings(output_dir=Path(), max_train_steps=1)
    optimizer, adapted = make_optimizer(unet, settings), adapt(unet)
    curve, loss = ImagenDDPMScheduler().log_snr.to(device()), LossSettings(prediction_type="epsilon")
    pictures = torch.rand(examples, 3, side, side, device=device()) * 2 - 1
    small = torch.nn.functional.avg_pool2d(pictures, 4) if unet.has_low_res else None
    mask = torch.ones(examples, TOKENS, dtype=torch.bool, device=device())
    text = TextEmbedding(torch.randn(examples, TOKENS, unet.config["encoder_hid_dim"], device=device()), mask)

    def take() -> None:
        draws = draw(pictures.shape[1:], range(examples), range(examples), loss, seed=0, device=device(), log_snr_table=curve)
        with torch.autocast(device().type, torch.bfloat16):
            told = stage_loss(adapted, pictures, draws=draws, log_snr_table=curve, settings=loss, text=text, low_res=small)
        told.losses.mean().backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), settings.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return take


def largest(unet: ConditionedUNet, side: int, most: int) -> tuple[int, str]:
    """The largest power of two of examples that a step holds, up to `most`, and why no more."""
    examples, why = 0, f"no more than {most} were tried"
    while max(2 * examples, 1) <= most:
        try:
            take = step(unet, max(2 * examples, 1), side)
            take()
            take()  # beside what the first one left in the optimizer
        except FAILURES as error:  # of memory, which not all devices and libraries call the same
            why = reason(error)
            break
        examples = max(2 * examples, 1)
        free()
    unet.zero_grad(set_to_none=True)
    free()
    return examples, why


def steps_of(slot: str, plan: Plan) -> str:
    """A table of the largest step of a stage, eager and compiled."""
    unet, side = network(slot, plan).train().to(memory_format=torch.channels_last), WINDOWS[slot]  # pyright: ignore[reportCallIssue]
    examples, why = largest(unet, side, plan.most)
    if not examples:
        return f"{slot} at {side}px: no step of one example ({why})"
    flop, rows = 3 * examples * work(slot, 1, paper=plan.paper, side=side, tokens=TOKENS), []  # a backward pass is two forward passes
    for way in ("eager", "compiled"):
        try:
            if way == "compiled":
                unet.compile(dynamic=False, **own_graphs())
            seconds = statistics.median(turns({"": step(unet, examples, side)}, plan.runs, title=f"{slot}, a step of {examples}")[""])
        except FAILURES as error:
            rows.append([way, reason(error), ""])
        else:
            rows.append([way, f"{examples / seconds:.1f}", share(flop, seconds)])
    told = table(["way", "examples a second", "of the matrix rate"], rows)
    return f"{slot} at {side}px, {examples} examples a step ({why}):\n\n{told}"


def training(plan: Plan) -> Iterator[str]:
    """A step of each stage with as many examples as the memory holds."""
    for slot in plan.slots:
        yield attempt(slot, partial(steps_of, slot, plan))


# --- other homes ----------------------------------------------------------------------------------------------------------------


def side_by_side(plan: Plan) -> Iterator[str]:
    """imagen-pytorch's `sample` and diffusers' IF pipelines beside this package's, by `benchmarks.side_by_side` on the device."""
    for home in HOMES:
        yield attempt(home, partial(compare, home, (THEIR_WIDTHS if plan.paper else WIDTHS)[home], plan.runs))


PARTS: dict[str, tuple[str, Callable[[Plan], Iterator[str]]]] = {
    "evaluations": ("One evaluation of each network", evaluations),
    "images": ("The whole cascade", images),
    "training": ("A step of training", training),
    "side_by_side": ("Beside imagen-pytorch and diffusers' IF pipelines", side_by_side),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--bundled", action="store_true", help="the networks of imagen-scenes in place of the paper's")
    parser.add_argument("--network", nargs="+", choices=NETWORKS, default=list(NETWORKS), help="for evaluations and training")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=list(Plan.evaluated), help="of evaluations")
    parser.add_argument("--most", type=int, help="examples of a training step; by default 512, of the bundled networks 4")
    parser.add_argument("--runs", type=int, default=Plan.runs)
    args = parser.parse_args()
    os.environ[DEVICE] = device_type()
    logging.set_verbosity_error()  # diffusers warns of every cast
    most = args.most or (4 if args.bundled else Plan.most)
    plan = Plan(not args.bundled, tuple(args.network), tuple(args.batch_sizes), most=most, runs=args.runs)
    print(f"{machine()}, {matrix_rate(torch.bfloat16) / 1e12:.1f} TFLOP/s in a matrix product in bfloat16", flush=True)
    for name in args.only:
        title, part = PARTS[name]
        print(f"\n## {title}", flush=True)
        for told in part(plan):
            print(f"\n{told}", flush=True)


if __name__ == "__main__":
    main()
