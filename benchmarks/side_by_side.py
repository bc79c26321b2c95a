"""imagen-pytorch's `sample` and diffusers' IF pipelines beside this package's cascade, on the same weights, steps and noise.

    make .venv/installed-reference
    .venv/bin/python -m benchmarks.side_by_side

Contestants of a kind take turns within one run, so that ratios hold when the machine's speed drifts. Weights are random, in
layouts people train and download: the two networks of imagen-pytorch's README, as wide as there (32 channels), and IF's first
two stages, narrower so that two cores can run them (64 and 32 channels; the second attends at 32px alone). Both homes keep
their defaults, but that imagen-pytorch's networks are in channels_last where they compute in bfloat16, and stay on a GPU between
stages; ours are in channels_last. Each also draws once in a process of its own, which tells its peak
memory (read from /proc: Linux).
"""

import argparse
import contextlib
import statistics
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import DDPMScheduler, IFPipeline, IFSuperResolutionPipeline, UNet2DConditionModel
from torch import Tensor

from imagen_diffusers import ImagenCascadePipeline
from imagen_diffusers.sampling.seeds import stage_generators

from .ceilings import device, free, machine
from .imagen_pytorch_package import load, noises, told_noise
from .timing import peak_memory, print_peak_memory, table, times_as_fast, turns

Draw = Callable[[], list[Tensor]]
Module = TypeVar("Module", bound=torch.nn.Module)
STEPS, GUIDANCE, TOKENS, SEED, RUNS = 5, 3.0, 20, 3, 3
TEXT_DIM = 768
README = {"cond_dim": 512, "dim_mults": (1, 2, 4, 8), "text_embed_dim": TEXT_DIM}
THEIR_NETWORKS = (
    {"num_resnet_blocks": 3, "layer_attns": (False, True, True, True), "layer_cross_attns": (False, True, True, True)},
    {
        "num_resnet_blocks": (2, 4, 8, 8),
        "layer_attns": (False, False, False, True),
        "layer_cross_attns": (False, False, False, True),
        "lowres_cond": True,
    },
)
IF_LAYOUT = {
    "layers_per_block": 3,
    "down_block_types": ("ResnetDownsampleBlock2D", *["SimpleCrossAttnDownBlock2D"] * 3),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": (*["SimpleCrossAttnUpBlock2D"] * 3, "ResnetUpsampleBlock2D"),
    "out_channels": 6,
    "encoder_hid_dim": TEXT_DIM,
    "attention_head_dim": 64,
    "addition_embed_type": "text",
    "addition_embed_type_num_heads": 8,
    "cross_attention_norm": "group_norm",
    "resnet_time_scale_shift": "scale_shift",
    "act_fn": "gelu",
}


def text() -> Tensor:
    return torch.randn(1, TOKENS, TEXT_DIM, generator=torch.Generator().manual_seed(0)).to(device())


def awake(module: Module) -> Module:
    """Layers that start at zero get values, so that equal images mean something."""
    generator = torch.Generator(device()).manual_seed(1)
    with torch.no_grad():
        for value in module.parameters():
            value.add_(0.01 * torch.randn(value.shape, generator=generator, device=device()).to(value.device))
    return module.eval()


def quick(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def channels_last(pipe: ImagenCascadePipeline) -> ImagenCascadePipeline:
    for number in pipe.stage_numbers:
        pipe.unet_of(number).to(memory_format=torch.channels_last)
    return quick(pipe)


# --- imagen-pytorch -------------------------------------------------------------------------------------------------------------


def write_imagen_pytorch(folder: Path, dim: int) -> None:
    """Its state dict, and the folder that our converter makes of it."""
    torch.manual_seed(0)
    imagen = their_imagen(dim)
    awake(imagen)
    torch.save(imagen.state_dict(), folder / "imagen.pt")
    told = {"image_sizes": (64, 256), "noise_schedules": "cosine", "pred_objectives": "noise", "timesteps": STEPS}
    ImagenCascadePipeline.from_imagen_pytorch(folder / "imagen.pt", settings=told).save_pretrained(folder / "imagen")


def their_imagen(dim: int) -> Any:
    package = load()
    networks = [package.Unet(dim=dim, **README, **network) for network in THEIR_NETWORKS]
    return package.Imagen(networks, image_sizes=(64, 256), timesteps=STEPS, text_embed_dim=TEXT_DIM)


def home_of_imagen_pytorch(folder: Path, dim: int, dtype: str) -> Draw:
    imagen = their_imagen(dim).eval()
    imagen.load_state_dict(torch.load(folder / "imagen.pt", weights_only=True))
    imagen.to(device())
    if dtype == "bfloat16":
        imagen.to(memory_format=torch.channels_last)  # weights in bfloat16 crash there; autocast does not
    embeds = text()
    autocast = torch.autocast(device().type, torch.bfloat16) if dtype == "bfloat16" else contextlib.nullcontext()

    def draw() -> list[Tensor]:
        told = {"cond_scale": GUIDANCE, "cfg_remove_parallel_component": False, "use_tqdm": False, "return_all_unet_outputs": True}
        told["use_one_unet_in_gpu"] = False  # or each stage would send all networks to the CPU and back
        (first,), (second,), _ = stage_generators(torch.Generator().manual_seed(SEED), 1, 3)
        noise = [*noises(first, 64, STEPS, low_res=False), *noises(second, 256, STEPS, low_res=True)]
        with told_noise([values.to(device()) for values in noise]), autocast:
            return imagen.sample(text_embeds=embeds, **told)

    return draw


# --- DeepFloyd IF ---------------------------------------------------------------------------------------------------------------


def write_deepfloyd(folder: Path, dim: int) -> None:
    """Both stages as IF's repositories hold them, without the text encoder."""
    layout = {**IF_LAYOUT, "block_out_channels": tuple(dim * m for m in (1, 2, 3, 4)), "cross_attention_dim": 4 * dim}
    more = {"class_embed_type": "timestep", "time_embedding_act_fn": "gelu", "time_embedding_dim": 4 * dim}
    plain = {"safety_checker": None, "feature_extractor": None, "watermarker": None, "requires_safety_checker": False}
    plain |= {"tokenizer": None, "text_encoder": None}
    curve = DDPMScheduler(beta_schedule="squaredcos_cap_v2", variance_type="learned_range", thresholding=True, sample_max_value=1.5)
    torch.manual_seed(0)
    base = awake(UNet2DConditionModel(**layout, sample_size=64, in_channels=3))
    IFPipeline(unet=base, scheduler=curve, **plain).save_pretrained(folder / "if-1")
    layout |= {"block_out_channels": tuple(dim // 2 * m for m in (1, 2, 3, 4)), "layers_per_block": 2, "attention_head_dim": dim // 2}
    layout["down_block_types"] = (*["ResnetDownsampleBlock2D"] * 3, "SimpleCrossAttnDownBlock2D")
    layout["up_block_types"] = ("SimpleCrossAttnUpBlock2D", *["ResnetUpsampleBlock2D"] * 3)
    larger = awake(UNet2DConditionModel(**layout, **more, sample_size=256, in_channels=6))
    noising = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    IFSuperResolutionPipeline(unet=larger, scheduler=curve, image_noising_scheduler=noising, **plain).save_pretrained(folder / "if-2")


def home_of_deepfloyd(folder: Path, dim: int, dtype: str) -> Draw:
    told = {"dtype": getattr(torch, dtype), "tokenizer": None, "text_encoder": None}
    base = quick(IFPipeline.from_pretrained(folder / "if-1", **told).to(device()))
    larger = quick(IFSuperResolutionPipeline.from_pretrained(folder / "if-2", **told).to(device()))
    embeds = text().to(getattr(torch, dtype))
    call = {"prompt_embeds": embeds, "negative_prompt_embeds": embeds.flip(1), "num_inference_steps": STEPS, "guidance_scale": GUIDANCE}
    call["output_type"] = "pt"

    def draw() -> list[Tensor]:
        first, second, _ = stage_generators(torch.Generator().manual_seed(SEED), 1, 3)
        drawn = base(**call, generator=first).images
        return [x / 2 + 0.5 for x in (drawn, larger(**call, image=drawn, generator=second).images)]

    return draw


# --- ours -----------------------------------------------------------------------------------------------------------------------


def ours_from_imagen_pytorch(folder: Path, dim: int, dtype: str) -> Draw:
    pipe = channels_last(ImagenCascadePipeline.from_pretrained(folder / "imagen", dtype=getattr(torch, dtype)).to(device()))
    call = {"prompt_embeds": text(), "guidance_scale": GUIDANCE, "output_type": "pt"}
    return lambda: pipe(**call, generator=torch.Generator().manual_seed(SEED)).stage_images


def ours_from_deepfloyd(folder: Path, dim: int, dtype: str) -> Draw:
    given = {"text_encoder": None, "dtype": getattr(torch, dtype)}
    pipe = channels_last(ImagenCascadePipeline.from_deepfloyd(folder / "if-1", folder / "if-2", **given).to(device()))
    call = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "output_type": "pt"}
    call |= {"prompt_embeds": text(), "negative_prompt_embeds": text().flip(1)}
    return lambda: pipe(**call, generator=torch.Generator().manual_seed(SEED)).stage_images


# --- the run --------------------------------------------------------------------------------------------------------------------

HOMES = {
    "imagen-pytorch": (write_imagen_pytorch, home_of_imagen_pytorch, ours_from_imagen_pytorch),
    "deepfloyd": (write_deepfloyd, home_of_deepfloyd, ours_from_deepfloyd),
}
WIDTHS = {"imagen-pytorch": 32, "deepfloyd": 64}
DTYPES = ("float32", "bfloat16")


def contestant(home: str, which: str, dtype: str, folder: Path, dim: int) -> Draw:
    _, theirs, ours = HOMES[home]
    return (theirs if which == "home" else ours)(folder, dim, dtype)


def compare(home: str, dim: int, runs: int) -> str:
    with tempfile.TemporaryDirectory() as place, torch.no_grad():
        folder = Path(place)
        HOMES[home][0](folder, dim)
        names = [(which, dtype) for dtype in DTYPES for which in ("home", "ours")]
        drawn: dict[tuple[str, str], Tensor] = {}

        def kept(name: tuple[str, str], draw: Draw) -> Callable[[], None]:
            return lambda: drawn.update({name: draw()[-1].float().cpu().clamp(0, 1)})

        seconds = turns({name: kept(name, contestant(home, *name, folder, dim)) for name in names}, runs, title=home)
        free()  # the processes of their own want the memory that torch keeps
        alone = [("--dim", str(dim), "--alone", home, *name, place) for name in names]
        peaks = {name: peak_memory("benchmarks.side_by_side", *given) for name, given in zip(names, alone, strict=True)}
    first = ("home", "float32")
    rows = []
    for name in names:
        who, far = home if name[0] == "home" else "imagen_diffusers", (drawn[name] - drawn[first]).abs().max().item()
        middle, least, most = statistics.median(seconds[name]), min(seconds[name]), max(seconds[name])
        ratio = times_as_fast(seconds, first, name)
        rows.append([f"{who}, {name[1]}", *(f"{x:.2f}" for x in (middle, least, most, ratio, peaks[name])), f"{far:.1e}"])
    said = f"{home}, {dim} channels, {STEPS} steps per stage, 64px then 256px, guidance {GUIDANCE}, median of {runs} runs"
    head = ["", "seconds per image", "from", "to", "times as fast", "peak GiB", "largest difference"]
    return f"{said}\n\n{table(head, rows)}"


def report(homes: Iterable[str] = HOMES, dim: int | None = None, runs: int = RUNS) -> str:
    return "\n\n".join(compare(home, dim or WIDTHS[home], runs) for home in homes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dim", type=int, help="channels of the finest level, in place of those; of IF's a multiple of 64")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--home", choices=HOMES, action="append", help="one of the two only")
    parser.add_argument("--alone", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        home, which, dtype, folder = args.alone
        with torch.no_grad():
            contestant(home, which, dtype, Path(folder), args.dim)()
        return print_peak_memory()
    print(f"{machine()}\n\n{report(args.home or HOMES, args.dim, args.runs)}")


if __name__ == "__main__":
    main()
