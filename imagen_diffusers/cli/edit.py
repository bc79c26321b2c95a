"""`imagen-diffusers edit` and `imagen-diffusers vary`: images that start from an image."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from .again import as_option, check_sides, first_numbers, of_the_first, remembered, said, say_which_of_several, with_remembered
from .best import BestOptions
from .conditions import digests
from .options import ImageFile, PipelineOptions, SamplingOptions, StopAt, TextOptions, numbers
from .sampling import sample

Strength = Annotated[
    str | None, typer.Option(help="How much is changed, from 0 to 1: one number, or one per stage. 0.7 by default; 1 under a mask.")
]
OfAlike = Annotated[
    str | None,
    typer.Option(help="How much is changed, from 0 to 1: one number, or one per stage. 0.3 by default, and all later stages anew."),
]
Source = Annotated[
    Path | None,
    typer.Option(
        "--from", exists=True, dir_okay=False, help="An image made by generate, edit or vary: what is not said is as it was there."
    ),
]
Mask = Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="A gray image as large, white where it is painted anew.")]
Seamless = Annotated[bool, typer.Option("--seamless", help="Move the painting's level to what is beside the mask: for backgrounds.")]
Side = Annotated[int | None, typer.Option(min=1, help="Of the result, in pixels; the image's shape by default.")]
CHANGE, PAINT = "ImagenCascadeImg2ImgPipeline", "ImagenCascadeInpaintPipeline"  # the tasks
ALIKE = 0.3  # in the first stage; the image as it is would leave later stages with few steps nothing to make


@dataclass(frozen=True)
class PromptlessOptions(SamplingOptions):
    """Which images, without what strengthens a prompt: whoever gives it hears why it is not taken, and help does not offer it."""

    guidance_scale: Annotated[str | None, typer.Option(hidden=True)] = None
    guider: Annotated[list[str] | None, typer.Option(hidden=True)] = None


@dataclass(frozen=True)
class SizeOptions:
    """How large the result is, and how the image comes to another shape."""

    height: Side = None
    width: Side = None
    resize_mode: Annotated[
        str, typer.Option(help="How the image comes to another shape: default stretches it, crop cuts it, fill repeats its edges.")
    ] = "default"


@dataclass(frozen=True)
class StageOptions:
    """Which stages run, and what they go on from."""

    low_res: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="A result of this command with --stop-at, to go on from: the stages after it run."),
    ] = None
    start_at: Annotated[int | None, typer.Option(min=2, help="The stage that takes --low-res; the first that enlarges it by default.")] = (
        None
    )
    stop_at: StopAt = None

    def call(self) -> dict[str, Any]:
        """As the pipelines take them."""
        from imagen_diffusers.images import read_image

        return {**asdict(self), "low_res": None if self.low_res is None else read_image(self.low_res)}

    @property
    def first(self) -> int:
        """The first one that runs, as far as is known before images are read."""
        return self.start_at or (1 if self.low_res is None else 2)

    def going_on(self, context: typer.Context) -> "StageOptions":
        """Without the remembered end of a small result that is gone on from, where the command line says no other."""
        ended = self.stop_at is not None and self.stop_at < self.first and not said(context, "stop_at")
        return replace(self, stop_at=None) if ended else self

    def counted_from(self, told: dict[str, Any]) -> tuple[int | None, int]:
        """The last stage that runs, None for all, and those before the first one, counted from the first of a remembered run."""
        began = told.get("start_at") or (2 if "low_res_digest" in told else 1)
        return None if self.stop_at is None else self.stop_at - began + 1, max(self.first - began, 0)

    def files(self) -> list[Path]:
        """That are read."""
        return [] if self.low_res is None else [self.low_res]

    def told(self) -> dict[str, Any]:
        """What the files' metadata say of what they went on from."""
        return {} if self.low_res is None else {"low_res_digest": digests([self.low_res])[0]}


@dataclass(frozen=True)
class PaintingOptions:
    """What is painted anew, and how."""

    mask: Mask = None
    mask_alpha: Annotated[
        bool, typer.Option("--mask-alpha", help="In place of --mask: paint anew where IMAGE is transparent, by half or more.")
    ] = False
    jump_n_sample: Annotated[
        int | None, typer.Option(min=1, help="Under a mask: how often each step is made, so that the painting fits. 1 by default.")
    ] = None
    mask_feather: Annotated[float | None, typer.Option(min=0, help="Pixels over which the painting fades into the rest.")] = None
    seamless: Seamless = False
    padding_mask_crop: Annotated[
        int | None,
        typer.Option(
            min=0, help="Paint a window alone, what is marked and so many pixels around it, and paste it back: the image keeps its size."
        ),
    ] = None

    def read(self, path: Path) -> tuple[Any, dict[str, Any]]:
        """The image of this file, and, where a part of it is marked, what else an inpainting call takes.

        Raises:
            ValueError: for options that do not go together, an image that is its own mask, and files that cannot be read.
        """
        from imagen_diffusers.images import read_image

        call = asdict(self)
        mask, alpha, image = call.pop("mask"), call.pop("mask_alpha"), read_image(path)
        if mask is not None and alpha:
            raise ValueError("--mask and --mask-alpha both say what is painted anew; give one of them")
        if mask is not None and mask.samefile(path):
            raise ValueError(
                f"--mask is {path}, the image itself; give another image, as large and white where it is painted anew, or --mask-alpha, "
                "where its transparency marks that"
            )
        if alpha:
            image, marked = _parted(path, image)
            return image, {"mask_image": marked, **call}
        if mask is not None:
            return image, {"mask_image": read_image(mask), **call}
        if self != PaintingOptions():
            options = ", ".join(f"--{name.replace('_', '-')}" for name in call)
            raise ValueError(f"{options} are about what a mask marks; give --mask or --mask-alpha, or leave them out")
        return image, {}


def _parted(path: Path, image: Any) -> tuple[Any, Any]:
    """The colours of an image, those of transparent pixels as well, and a mask that is the whiter the more transparent it is."""
    from PIL import ImageOps

    from imagen_diffusers.pipelines.image_inputs import with_alpha

    image = with_alpha(image)
    alpha = image.convert("RGBA").getchannel("A")
    if alpha.getextrema()[0] > 127:
        raise ValueError(f"--mask-alpha marks what is transparent by half or more, and no pixel of {path} is; erase a part, or give --mask")
    return image.convert("RGBA").convert("RGB"), ImageOps.invert(alpha)


def _check_edit(image: Any, strength: Any, **said: Any) -> None:
    """See that image, mask and numbers go together, before anything is loaded; whether there are as many stages is seen later.

    Args:
        image, strength, said: as `Edit` takes them, None for what is not said.

    Raises:
        ValueError: for what does not fit.
    """
    import torch

    from imagen_diffusers.pipelines.edits import Edit

    stages = range(1, len(strength) + 1) if isinstance(strength, list) else [1]
    given = {name: value for name, value in said.items() if value is not None}
    Edit(image, 1.0 if strength is None else strength, **given).read(stages, 3, torch.device("cpu"))


def edit(
    context: typer.Context,
    image: ImageFile,
    text: TextOptions,
    pipeline: PipelineOptions,
    sampling: SamplingOptions,
    best: BestOptions,
    size: SizeOptions,
    painting: PaintingOptions,
    stages: StageOptions,
    prompt: Annotated[str | None, typer.Argument(help="What the result shows.")] = None,
    source: Source = None,
    strength: Strength = None,
) -> None:
    """Change IMAGE so that it shows PROMPT: all of it, or where the mask is white."""
    kept = [image, *(path for path in (source, painting.mask) if path is not None), *stages.files()]
    told: dict[str, Any] = {}
    if source is not None:
        told = remembered(source, CHANGE, PAINT)
        groups = (with_remembered(context, group, told) for group in (text, pipeline, sampling, size, painting, stages))
        text, pipeline, sampling, size, painting, stages = groups
        stages = stages.going_on(context)
        check_sides(context, source, told, stages.stop_at)
        prompt = told.get("prompt") if prompt is None else prompt
        strength = strength if said(context, "strength") else as_option(told.get("strength"))
        say_which_of_several(context, told)
        of_these = stages.counted_from(told)
        sampling = of_the_first(sampling, context, *of_these)
        strength = strength if said(context, "strength") else first_numbers(strength, *of_these)
    if prompt is None:
        raise typer.BadParameter("it is missing; say what the result shows, or give --from an image", param_hint="PROMPT")
    lacking = {
        "--mask or --mask-alpha": told.get("task") == PAINT and painting.mask is None and not painting.mask_alpha,
        "--low-res": "low_res_digest" in told and stages.low_res is None,
    }
    if any(lacking.values()):
        options = " and ".join(option for option, is_lacking in lacking.items() if is_lacking)
        raise ValueError(f"{source} was made with another image, which its file does not hold; give {options}, too")
    known, marked = painting.read(image)
    strengths = numbers("--strength", strength)
    _check_edit(known, strengths, resize_mode=size.resize_mode, **marked)
    call = {"strength": strengths, **stages.call(), **asdict(size), **marked}
    task = PAINT if marked else CHANGE
    sample(prompt, text, pipeline, sampling, task=task, kept=kept, best=best.read(), told=stages.told(), image=known, **call)


def vary(
    image: ImageFile,
    pipeline: PipelineOptions,
    sampling: PromptlessOptions,
    best: BestOptions,
    size: SizeOptions,
    stages: StageOptions,
    strength: OfAlike = None,
) -> None:
    """Images like IMAGE, without a prompt."""
    from imagen_diffusers.images import read_image

    if sampling.guidance_scale is not None or sampling.guider:
        raise ValueError("--guidance-scale and --guider strengthen a prompt, and vary has none; leave them out, or give edit a prompt")
    known, chosen = read_image(image), numbers("--strength", strength)
    _check_edit(known, chosen, resize_mode=size.resize_mode)

    def strengths(pipe: Any) -> dict[str, Any]:
        if chosen is not None:
            return {"strength": chosen}
        if stages.low_res is not None:
            return {"strength": 1.0}  # all of them are later ones
        later = sum(n <= (stages.stop_at or n) for n in pipe.stage_numbers) - 1
        return {"strength": [ALIKE] + [1.0] * later}

    call, kept = {"image": known, **stages.call(), **asdict(size)}, [image, *stages.files()]
    call |= {"of_pipe": strengths, "kept": kept, "best": best.read(), "told": stages.told()}
    sample(None, TextOptions(), pipeline, sampling, task=CHANGE, **call)
