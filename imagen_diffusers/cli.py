"""The command `imagen-diffusers`: draw pictures of a prompt, or enlarge a picture. Nothing imports this file."""

from pathlib import Path
from typing import Annotated, Any

import typer

# torch and diffusers are imported inside the commands, so that --help and a mistyped option answer at once.

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Imagen: text to a 1024px picture by a cascade of pixel diffusion models."
)

SCHEDULERS = {
    "ddpm": "ImagenDDPMScheduler",
    "ddim": "ImagenDDIMScheduler",
    "dpm++": "ImagenDPMSolverMultistepScheduler",
    "euler": "ImagenEulerDiscreteScheduler",
    "unipc": "ImagenUniPCMultistepScheduler",
}
MAX_SEED = 2**32

Model = Annotated[str | None, typer.Option(help="Folder or Hub id; the bundled imagen-scenes by default.")]
Output = Annotated[Path, typer.Option(help="Where to write the PNG. Several pictures: picture-1.png, ... and picture-grid.png.")]
Seed = Annotated[int | None, typer.Option(help="Of the first picture; the next ones count up. Drawn and printed by default.")]
NumImages = Annotated[int, typer.Option(min=1, help="How many pictures.")]
Steps = Annotated[str | None, typer.Option(help='Steps: one number, or one a stage, "25,8,4".')]
Guidance = Annotated[str | None, typer.Option(help='Guidance scale: one number, or one a stage, "5,3,1". 1 is off.')]
NoiseLevel = Annotated[
    str | None, typer.Option(help="Augmentation of each low-resolution condition in [0, 1000): one number, or one a stage.")
]
Negative = Annotated[str | None, typer.Option(help="What to steer away from.")]
Scheduler = Annotated[str | None, typer.Option(help=f"In every stage: {', '.join(SCHEDULERS)}. The checkpoint's own by default.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
Device = Annotated[str, typer.Option(help='"cpu", "cuda", ...; "auto" takes a GPU where there is one.')]
Side = Annotated[int | None, typer.Option(help="Of the final picture, in pixels.")]


@app.command()
def generate(  # noqa: PLR0913 (one argument an option)
    prompt: str,
    model: Model = None,
    output: Output = Path("picture.png"),
    seed: Seed = None,
    num_images: NumImages = 1,
    steps: Steps = None,
    guidance_scale: Guidance = None,
    noise_level: NoiseLevel = None,
    negative_prompt: Negative = None,
    scheduler: Scheduler = None,
    stages: Annotated[int | None, typer.Option(min=1, help="Stop after this many stages.")] = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    width: Side = None,
    height: Side = None,
) -> None:
    """Draw pictures of PROMPT."""
    call = {"negative_prompt": negative_prompt, "stop_at": stages, "width": width, "height": height}
    settings = {"num_inference_steps": steps, "guidance_scale": guidance_scale, "noise_level": noise_level}
    _draw(prompt, model, output, seed, num_images, settings, scheduler, dtype, device, call)


@app.command()
def upscale(
    image: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    prompt: str,
    model: Model = None,
    output: Output = Path("picture.png"),
    seed: Seed = None,
    num_images: NumImages = 1,
    steps: Steps = None,
    guidance_scale: Guidance = None,
    noise_level: NoiseLevel = None,
    scheduler: Scheduler = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
) -> None:
    """Enlarge IMAGE, which shows PROMPT, by the super-resolution stages."""
    from PIL import Image

    with Image.open(image) as opened:
        call = {"image": opened.convert("RGB")}
    settings = {"num_inference_steps": steps, "guidance_scale": guidance_scale, "noise_level": noise_level}
    _draw(prompt, model, output, seed, num_images, settings, scheduler, dtype, device, call)


def _draw(
    prompt, model, output: Path, seed, num_images: int, settings: dict, scheduler, dtype: str, device: str, call: dict[str, Any]
) -> None:
    """What both commands do: load, warn, draw, save; errors of the user as one line."""
    try:
        pipe = _load(model, dtype, device, scheduler)
        _warn_of_unknown_words(pipe, [prompt, call.get("negative_prompt") or ""])
        settings = {k: _numbers(k, v) for k, v in settings.items() if v is not None}
        seed = _fresh_seed() if seed is None else seed
        pictures = _pictures(pipe, prompt, range(seed, seed + num_images), {**settings, **call})
    except (ValueError, OSError) as error:
        typer.secho(f"Error: {error}", fg="red", err=True)
        raise typer.Exit(1) from None
    told = {"prompt": prompt, "model": model or "imagen-scenes", "scheduler": scheduler, **settings}
    told |= {k: v for k, v in call.items() if k != "image" and v is not None}
    _save(pictures, output, seed, told)


def _load(model: str | None, dtype: str, device: str, scheduler: str | None):
    import torch

    import imagen_diffusers

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    fast_bf16 = device != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    dtypes["auto"] = torch.bfloat16 if fast_bf16 else torch.float32
    if dtype not in dtypes:
        raise ValueError(f'--dtype "{dtype}" is unknown; use one of {", ".join(dtypes)}')
    if scheduler is not None and scheduler not in SCHEDULERS:
        raise ValueError(f'--scheduler "{scheduler}" is unknown; use one of {", ".join(SCHEDULERS)}')
    folder = str(imagen_diffusers.bundled("imagen-scenes")) if model is None else model
    variant = {"variant": "fp16"} if model is None else {}
    # The text encoder stays in float32: it is small beside the rest, or overflows in half precision (T5-XXL).
    wanted = {"default": dtypes[dtype], "text_encoder": torch.float32}
    pipe = imagen_diffusers.ImagenCascadePipeline.from_pretrained(folder, dtype=wanted, **variant).to(device)
    for number in pipe.stage_numbers:
        slot, its_scheduler = pipe.slots(number)
        getattr(pipe, slot).to(memory_format=torch.channels_last)
        if scheduler is not None:
            swapped = getattr(imagen_diffusers, SCHEDULERS[scheduler]).from_config(getattr(pipe, its_scheduler).config)
            setattr(pipe, its_scheduler, swapped)
    return pipe


def _warn_of_unknown_words(pipe, prompts: list[str]) -> None:
    from imagen_diffusers.text.t5 import known_words, unknown_words

    unknown = [w for prompt in prompts for w in unknown_words(prompt, pipe.tokenizer)]
    if unknown:
        words = f"The text encoder never saw: {', '.join(unknown)}. It knows: {' '.join(known_words(pipe.tokenizer))}"
        typer.secho(words, fg="yellow", err=True)


def _pictures(pipe, prompt: str, seeds: range, arguments: dict[str, Any]) -> list:
    """One picture a seed, one after the other: memory does not grow with their number."""
    import torch

    return [pipe(prompt, generator=torch.Generator().manual_seed(s), **arguments).images[0] for s in seeds]


def _save(pictures: list, output: Path, seed: int, told: dict[str, Any]) -> None:
    from imagen_diffusers.pictures import labelled_grid, save_png

    for i, picture in enumerate(pictures):
        path = output if len(pictures) == 1 else output.with_stem(f"{output.stem}-{i + 1}")
        save_png(picture, path, {**told, "seed": seed + i})
        typer.echo(f"{path} ({picture.width}x{picture.height}, seed {seed + i})")
    if len(pictures) > 1:
        path = output.with_stem(f"{output.stem}-grid")
        save_png(labelled_grid(pictures, [f"seed {seed + i}" for i in range(len(pictures))]), path, {**told, "seed": seed})
        typer.echo(f"{path}")


def _numbers(name: str, text: str) -> float | list[float]:
    """ "5" to 5.0, "5,3,1" to [5.0, 3.0, 1.0]; whole numbers stay whole."""
    try:
        values = [float(v) for v in text.split(",")]
    except ValueError:
        raise ValueError(f'{name} is "{text}"; give a number, or one a stage separated by commas') from None
    values = [int(v) if v.is_integer() else v for v in values]
    return values[0] if len(values) == 1 else values


def _fresh_seed() -> int:
    import secrets

    return secrets.randbelow(MAX_SEED)
