"""The options that several commands take, said once, and how their values are read."""

import inspect
import math
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer

SCHEDULERS = {
    "ddpm": "ImagenDDPMScheduler",
    "ddim": "ImagenDDIMScheduler",
    "dpm++": "ImagenDPMSolverMultistepScheduler",
    "euler": "ImagenEulerDiscreteScheduler",
    "unipc": "ImagenUniPCMultistepScheduler",
}
DTYPES = ("auto", "float32", "bfloat16", "float16")
OFFLOADS = ("none", "model", "sequential")
DEFAULT_MODEL = "imagen-scenes"
TEXT_TO_IMAGE = "ImagenCascadePipeline"  # the task of a command that says none
OF_THE_MACHINE = {"device", "offload"}  # and not of an image
FORMER = {"steps": "num-inference-steps", "num-images": "num-images-per-prompt", "stages": "stop-at"}

Model = Annotated[str, typer.Option(help="A folder, the name of a bundled pipeline, or a Hub id.")]
Variant = Annotated[str | None, typer.Option(help='Of the weight files, for example "fp16"; found where there is but one.')]
Revision = Annotated[str | None, typer.Option(help="Of a Hub repository: a branch, a tag or a commit.")]
Device = Annotated[str, typer.Option(help='"cpu", "cuda", ...; "auto" takes a GPU where there is one.')]
Output = Annotated[
    Path,
    typer.Option(
        help="Where to write the PNG, over one that is there. Several images: image-1.png, ... and image-grid.png. "
        "Of a file of prompts, or a folder, a folder."
    ),
]
Seed = Annotated[
    int | None, typer.Option(min=0, max=2**63 - 1, help="Of the first image; the next ones count up. Chosen and printed by default.")
]
Preset = Annotated[
    str | None,
    typer.Option(help="How to sample: quality, balanced, fast, or a folder or Hub id of a preset. The checkpoint's own by default."),
]
Scheduler = Annotated[str | None, typer.Option(help=f"In every stage: {', '.join(SCHEDULERS)}. The checkpoint's own by default.")]
Lora = Annotated[list[str] | None, typer.Option(help='Adapter: folder or Hub id, "my-style" or "my-style:0.7". May be given again.')]
TextualInversion = Annotated[
    list[str] | None, typer.Option(help="Learned word, which prompts then say: folder, file or Hub id. May be given again.")
]
Dtype = Annotated[str, typer.Option(help=f"{', '.join(DTYPES)}. auto: bfloat16 where it is fast; on a CPU the text encoder in float32.")]
Offload = Annotated[
    str, typer.Option(help=f"{', '.join(OFFLOADS)}: networks (model), or their layers (sequential), wait in main memory until they run.")
]
Tile = Annotated[
    int | None, typer.Option(min=1, help="Enlarge in overlapping tiles of this side, in pixels: larger images in the same memory.")
]
Count = Annotated[int, typer.Option(min=1, help="How many images.")]
Steps = Annotated[str | None, typer.Option(help='Steps: one number, or one per stage, "25,8,4".')]
Guidance = Annotated[str | None, typer.Option(help='Guidance scale: one number, or one per stage, "5,3,1". 1 is off.')]
Guider = Annotated[
    list[str] | None,
    typer.Option(
        help="One of diffusers' guiders in place of the guidance scale, NAME or NAME:setting=value,setting=value. "
        "Given again, one for each stage; none for a stage without."
    ),
]
NoiseLevel = Annotated[
    str | None, typer.Option(help="Augmentation of each low-resolution condition in [0, 1000): one number, or one per stage.")
]
CondImage = Annotated[
    list[Path] | None,
    typer.Option(
        exists=True,
        dir_okay=False,
        help="For networks conditioned on images. Given again, the channels follow each other: one of a gray file, three of others.",
    ),
]
ImageFile = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Any image file; transparent parts show white.")]
NegativePrompt = Annotated[str | None, typer.Option(help="What to steer away from.")]
Weights = Annotated[
    bool, typer.Option("--weights/--no-weights", help="Read (red:1.3) in prompts as a weight: above 1 says more of a word, below 1 less.")
]
BlendWith = Annotated[str | None, typer.Option(help="A second prompt, towards which --blend goes.")]
Blend = Annotated[float | None, typer.Option(min=0, max=1, help="How far from the prompt, 0, to that of --blend-with, 1.")]
PROMPT_FILE = "A prompt a line, or a .jsonl or .csv with a column of them."
Column = Annotated[str | None, typer.Option(help="Of the prompts in their file; by default the first of prompt, Prompts, text, caption.")]
StopAt = Annotated[int | None, typer.Option(min=1, help="The last stage to run.")]


@dataclass(frozen=True)
class PipelineOptions:
    """Which pipeline, and how it computes."""

    model: Model = DEFAULT_MODEL
    variant: Variant = None
    revision: Revision = None
    preset: Preset = None
    scheduler: Scheduler = None
    lora: Lora = None
    textual_inversion: TextualInversion = None
    dtype: Dtype = "auto"
    device: Device = "auto"
    offload: Offload = "none"
    tile: Tile = None


@dataclass(frozen=True)
class SamplingOptions:
    """Which images, and how they are sampled."""

    output: Output = Path("image.png")
    seed: Seed = None
    num_images_per_prompt: Count = 1
    num_inference_steps: Steps = None
    guidance_scale: Guidance = None
    guider: Guider = None
    noise_level: NoiseLevel = None
    cond_image: CondImage = None


@dataclass(frozen=True)
class TextOptions:
    """What is said beside the prompt, and how it is read."""

    negative_prompt: NegativePrompt = None
    weights: Weights = False
    blend_with: BlendWith = None
    blend: Blend = None


def ungrouped(command: Callable[..., None]) -> Callable[..., None]:
    """The command with a parameter for each field of those of its parameters that are groups of options, as typer reads them."""
    parameters = inspect.signature(command).parameters
    groups: dict[str, Any] = {name: p.annotation for name, p in parameters.items() if is_dataclass(p.annotation)}

    @wraps(command)
    def run(**given: Any) -> None:
        made = {name: group(**{f.name: given.pop(f.name) for f in fields(group)}) for name, group in groups.items()}
        command(**made, **given)

    alone = inspect.Parameter.KEYWORD_ONLY
    flat: list[inspect.Parameter] = []
    for name, p in parameters.items():
        if name in groups:
            flat += [inspect.Parameter(f.name, alone, default=f.default, annotation=f.type) for f in fields(groups[name])]
        else:
            flat.append(p.replace(kind=alone))
    run.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in flat}
    return run


def spelling(name: str) -> str:
    """An option as it is spelt now: former names, and underscores as scripts have them, are read as well."""
    name = name.replace("_", "-")
    return FORMER.get(name, name)


def numbers(option: str, text: str | float | None, *, whole: bool = False) -> float | list[float] | None:
    """ "5" to 5, "5,3,1" to [5, 3, 1]; whole numbers stay whole, and None and what was read before stay what they are.

    Raises:
        ValueError: for what is no number, or, if `whole`, no whole one.
    """
    if text is None:
        return None
    try:
        values = [float(v) for v in str(text).split(",")]
    except ValueError:
        raise ValueError(f'{option} is "{text}"; give a number, or one per stage separated by commas') from None
    if not all(map(math.isfinite, values)) or whole and not all(v.is_integer() for v in values):
        raise ValueError(f'{option} is "{text}"; give {"whole" if whole else "finite"} numbers')
    values = [int(v) if v.is_integer() else v for v in values]
    return values[0] if len(values) == 1 else values


def image_paths(output: Path, count: int) -> list[Path]:
    """Where `count` images go, and after them, if there are several, their grid.

    Raises:
        ValueError: for a name that is no PNG's, and a place that cannot be written, before anything is generated.
    """
    if output.suffix.lower() != ".png":
        raise ValueError(f'--output is "{output}"; images are written as PNG, so give a name that ends in .png')
    names = [""] if count == 1 else [*(f"-{i + 1}" for i in range(count)), "-grid"]
    paths = [output.with_stem(f"{output.stem}{name}") for name in names]
    for path in paths:
        if path.is_dir():
            raise ValueError(f"{path} is a folder; give another --output")
    check_writable(output.parent)
    return paths


def check_kept(written: Iterable[Path], read: Iterable[Path]) -> None:
    """See that no file that is read is written over.

    Raises:
        ValueError: naming it.
    """
    for source, path in product(read, written):
        if path.exists() and path.samefile(source):
            raise ValueError(f"--output would write over {source}, which is read; give another name, so that the image is kept")


def check_writable(folder: Path) -> None:
    """See that files can be written in a folder, or in a new one of this name; nothing stays behind.

    Raises:
        ValueError: saying what is in the way.
    """
    there = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    if not there.is_dir():
        raise ValueError(f"{folder} cannot be a folder: {there} is a file")
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise ValueError(f"{folder} cannot be written: {error.strerror or error}") from None
