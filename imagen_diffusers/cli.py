"""The command `imagen-diffusers`: draw pictures, enlarge a picture, encode captions, convert checkpoints. Nothing imports this file."""

from itertools import chain
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
Preset = Annotated[
    str | None,
    typer.Option(help="How to sample: quality, balanced, fast, or a folder or Hub id of a preset. The checkpoint's own by default."),
]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
Device = Annotated[str, typer.Option(help='"cpu", "cuda", ...; "auto" takes a GPU where there is one.')]
Lora = Annotated[list[str] | None, typer.Option(help='Adapter: folder or Hub id, "my-style" or "my-style:0.7". May be given again.')]
Tile = Annotated[
    int | None, typer.Option(min=1, help="Enlarge in overlapping tiles of this side, in pixels: larger pictures in the same memory.")
]
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
    preset: Preset = None,
    scheduler: Scheduler = None,
    lora: Lora = None,
    stages: Annotated[int | None, typer.Option(min=1, help="Stop after this many stages.")] = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    tile: Tile = None,
    width: Side = None,
    height: Side = None,
) -> None:
    """Draw pictures of PROMPT."""
    call = {"negative_prompt": negative_prompt, "stop_at": stages, "width": width, "height": height}
    settings = {"num_inference_steps": steps, "guidance_scale": guidance_scale, "noise_level": noise_level}
    ready = {"model": model, "preset": preset, "scheduler": scheduler, "lora": lora, "dtype": dtype, "device": device, "tile": tile}
    _draw(prompt, ready, output, seed, num_images, settings, call)


@app.command()
def upscale(  # noqa: PLR0913 (one argument an option)
    image: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    prompt: str,
    model: Model = None,
    output: Output = Path("picture.png"),
    seed: Seed = None,
    num_images: NumImages = 1,
    steps: Steps = None,
    guidance_scale: Guidance = None,
    noise_level: NoiseLevel = None,
    preset: Preset = None,
    scheduler: Scheduler = None,
    lora: Lora = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    tile: Tile = None,
) -> None:
    """Enlarge IMAGE, which shows PROMPT, by the super-resolution stages."""
    from PIL import Image

    with Image.open(image) as opened:
        call = {"image": opened.convert("RGB")}
    settings = {"num_inference_steps": steps, "guidance_scale": guidance_scale, "noise_level": noise_level}
    ready = {"model": model, "preset": preset, "scheduler": scheduler, "lora": lora, "dtype": dtype, "device": device, "tile": tile}
    _draw(prompt, ready, output, seed, num_images, settings, call)


@app.command()
def encode_text(
    data: Annotated[str, typer.Argument(help="Folder of captioned pictures, or Hub id of a data set.")],
    output: Annotated[Path, typer.Option(help="Folder of the cache; run again, it goes on.")],
    model: Model = None,
    caption_column: Annotated[str | None, typer.Option(help="Where the captions are.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Captions encoded at once.")] = 64,
    device: Device = "auto",
) -> None:
    """Encode the captions of DATA once, for training without a text encoder: --text_cache OUTPUT."""
    from tqdm import tqdm

    from imagen_diffusers.text.prompts import TextRules
    from imagen_diffusers.training.datasets import DataSettings, load_captions
    from imagen_diffusers.training.text_cache import write_text_cache

    try:
        folder = Path(data) if Path(data).exists() else None
        place = DataSettings(train_data_dir=folder, dataset_name=data if folder is None else None, caption_column=caption_column)
        captions, count = load_captions(place)
        pipe = _load(model, "float32", device, unet=None, unet_2=None, unet_3=None)
        rules = TextRules.of(pipe.config)
        if rules.null_text == "empty":
            captions = chain(captions, [""])
        given = {"max_length": rules.max_sequence_length, "text_padding": rules.text_padding, "clean_caption": rules.clean_caption}
        given["batch_size"] = batch_size
        with tqdm(total=count, desc="encoding") as progress:
            for done in write_text_cache(output, captions, pipe.tokenizer, pipe.text_encoder, **given):
                progress.update(done - progress.n)
    except (ValueError, OSError) as error:
        typer.secho(f"Error: {error}", fg="red", err=True)
        raise typer.Exit(1) from None
    size = sum(path.stat().st_size for path in output.iterdir())
    typer.echo(f"{output}: {done} captions, {size / 1e6:.1f} MB")


@app.command()
def convert(
    kind: Annotated[str, typer.Argument(help="deepfloyd or imagen-pytorch.")],
    source: Annotated[str, typer.Argument(help="An IF base (folder or Hub id), or a file of imagen-pytorch.")],
    dest: Annotated[Path, typer.Argument(help="Where the pipeline's folder is written.")],
    stage_2: Annotated[str | None, typer.Option(help="deepfloyd: the super-resolution stage, folder or Hub id.")] = None,
    variant: Annotated[str | None, typer.Option(help='deepfloyd: of the weight files, for example "fp16".')] = None,
    settings: Annotated[Path | None, typer.Option(help="imagen-pytorch: JSON of Imagen's arguments that the file does not hold.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="imagen-pytorch: take raw weights, not averaged ones.")] = False,
    text_encoder: Annotated[str | None, typer.Option(help="imagen-pytorch: T5 encoder to put in, folder or Hub id.")] = None,
) -> None:
    """Make an ordinary pipeline folder of SOURCE, and say what was found and assumed."""
    try:
        if kind == "deepfloyd":
            from imagen_diffusers import ImagenCascadePipeline

            pipe = ImagenCascadePipeline.from_deepfloyd(source, stage_2, variant=variant)
            report = [
                f"{pipe.slots(n)[0]}: {adapted.module.num_parameters() / 1e6:.1f} M parameters" for n, adapted in pipe.networks.items()
            ]
        elif kind == "imagen-pytorch":
            pipe, report = _from_imagen_pytorch(Path(source), settings, raw, text_encoder)
        else:
            raise ValueError(f'"{kind}" is unknown; convert deepfloyd or imagen-pytorch')
        pipe.save_pretrained(dest)
    except (ValueError, OSError) as error:
        typer.secho(f"Error: {error}", fg="red", err=True)
        raise typer.Exit(1) from None
    typer.echo("\n".join([*report, f"written to {dest}"]))


def _from_imagen_pytorch(source: Path, settings: Path | None, raw: bool, text_encoder: str | None):
    import json

    from transformers import AutoTokenizer, T5EncoderModel

    from imagen_diffusers.interop import imagen_pytorch

    if not source.exists():
        raise ValueError(f"{source} is no file")
    components = {}
    if text_encoder is not None:
        components = {
            "tokenizer": AutoTokenizer.from_pretrained(text_encoder),
            "text_encoder": T5EncoderModel.from_pretrained(text_encoder),
        }
    told = json.loads(settings.read_text()) if settings is not None else None
    return imagen_pytorch.convert(source, ema=not raw, settings=told, **components)


def _draw(prompt, ready: dict, output: Path, seed, num_images: int, settings: dict, call: dict[str, Any]) -> None:
    """What both commands do: load, warn, draw, save; errors of the user as one line."""
    try:
        pipe = _prepare(**ready)
        _warn_of_unknown_words(pipe, [prompt, call.get("negative_prompt") or ""])
        settings = {k: _numbers(k, v) for k, v in settings.items() if v is not None}
        seed = _fresh_seed() if seed is None else seed
        pictures = _pictures(pipe, prompt, range(seed, seed + num_images), {**settings, **call})
    except (ValueError, OSError) as error:
        typer.secho(f"Error: {error}", fg="red", err=True)
        raise typer.Exit(1) from None
    told = {"prompt": prompt, **ready, "model": ready["model"] or "imagen-scenes", **settings}
    told |= {k: v for k, v in call.items() if k != "image" and v is not None}
    _save(pictures, output, seed, told)


def _prepare(model, preset: str | None, scheduler: str | None, lora: list[str] | None, dtype: str, device: str, tile: int | None):
    """The pipeline as the options say."""
    import torch

    import imagen_diffusers

    if scheduler is not None and scheduler not in SCHEDULERS:
        raise ValueError(f'--scheduler "{scheduler}" is unknown; use one of {", ".join(SCHEDULERS)}')
    pipe = _load(model, dtype, device)
    if preset is not None:
        pipe.use_preset(preset if "/" in preset or Path(preset).exists() else imagen_diffusers.bundled(preset))
    for number in pipe.stage_numbers:
        slot, its_scheduler = pipe.slots(number)
        getattr(pipe, slot).to(memory_format=torch.channels_last)
        if scheduler is not None:
            swapped = getattr(imagen_diffusers, SCHEDULERS[scheduler]).from_config(getattr(pipe, its_scheduler).config)
            setattr(pipe, its_scheduler, swapped)
    _add_loras(pipe, lora or [])
    if tile is not None:
        pipe.enable_tiling(tile)
    return pipe


def _load(model: str | None, dtype: str, device: str, **components: None):
    import torch

    import imagen_diffusers

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    fast_bf16 = device != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    dtypes["auto"] = torch.bfloat16 if fast_bf16 else torch.float32
    if dtype not in dtypes:
        raise ValueError(f'--dtype "{dtype}" is unknown; use one of {", ".join(dtypes)}')
    folder = str(imagen_diffusers.bundled("imagen-scenes")) if model is None else model
    variant = {"variant": "fp16"} if model is None else {}
    # The text encoder stays in float32: it is small beside the rest, or overflows in half precision (T5-XXL).
    wanted = {"default": dtypes[dtype], "text_encoder": torch.float32}
    return imagen_diffusers.ImagenCascadePipeline.from_pretrained(folder, dtype=wanted, **variant, **components).to(device)


def _add_loras(pipe, loras: list[str]) -> None:
    weights = {}
    for i, given in enumerate(loras):
        source, _, weight = given.rpartition(":")
        try:
            source, weight = (source, float(weight)) if source else (given, 1.0)
        except ValueError:
            source, weight = given, 1.0  # a colon of a path
        pipe.load_lora_weights(source, adapter_name=f"lora_{i}")
        weights[f"lora_{i}"] = weight
    if weights:
        pipe.set_adapters(list(weights), list(weights.values()))


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
