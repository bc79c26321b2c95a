"""Images of prompts under several settings: each prompt has a seed of its own, so that neither batches nor processes change its image."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from imagen_diffusers.images import save_png
from imagen_diffusers.pipelines.arguments import one_each
from imagen_diffusers.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline

from .figures import exact


class Point(NamedTuple):
    """One setting under which all prompts are sampled.

    Args:
        name: of its folder, "guidance-3".
        settings: of the first stage, by the names of a call: what a curve is drawn over. Later stages keep the pipeline's own.
        call: arguments of the pipeline's call.
    """

    name: str
    settings: dict[str, float]
    call: dict[str, Any]

    @property
    def common(self) -> dict[str, Any]:
        """What it shares with other points of its curve."""
        return {"setting": list(self.settings), **{name: value for name, value in self.call.items() if name not in self.settings}}


def sweep(
    pipe: ImagenCascadePipeline, name: str | None = None, values: Sequence[float] = (), *, stop_at: int | None = None, **call: Any
) -> list[Point]:
    """The points of a curve: the first stage's `guidance_scale` or `num_inference_steps` at each of the values.

    Args:
        pipe: the cascade, whose own settings are those of later stages, and of all stages where no `name` is given.
        name: of the setting that changes.
        values: of it, each of which makes a point.
        stop_at: the last stage to run.
        call: other arguments of the pipeline's call, the same for all points.

    Raises:
        ValueError: for a value that is there twice.
    """
    call = {**call, "stop_at": stop_at}
    if name is None:
        return [Point("own-settings", {}, call)]
    if len(set(values)) < len(values):
        raise ValueError(f"{name} is {', '.join(map(exact, values))}; give each value once")
    first, *later = [n for n in pipe.stage_numbers if n <= (stop_at or n)] or [1]
    own = one_each(name, None, pipe.config, later) if later else []
    word = name.split("_")[0] if name == "guidance_scale" else "steps"
    return [Point(f"{word}-{exact(value)}", {name: value}, {**call, name: [value, *own]}) for value in values]


def generate(pipe: ImagenCascadePipeline, rows: Sequence[dict[str, Any]], chosen: range, point: Point, seed: int) -> Tensor:
    """Images (B, 3, H, W) of the `chosen` rows on the CPU, as 8-bit files hold them, in [0, 1]; row i has the seed `seed` + i."""
    generators = [torch.Generator().manual_seed(seed + i) for i in chosen]
    prompts = [rows[i]["prompt"] for i in chosen]  # of networks that take no text they name the images alone
    text: Any = {"prompt": prompts} if pipe.takes_text else {"num_images_per_prompt": len(prompts)}
    made: Any = pipe(**text, generator=generators, output_type="pt", **point.call)
    return eight_bits(made.images)


def eight_bits(images: Tensor) -> Tensor:
    """Float32 on the CPU with the 256 levels of a file: what is measured is what is saved."""
    return (images.float().cpu() * 255).round() / 255


def save(images: Tensor, rows: Sequence[dict[str, Any]], chosen: range, folder: Path, told: dict[str, Any], seed: int) -> None:
    """A PNG an image, named by its row, which remembers its settings."""
    from diffusers.image_processor import VaeImageProcessor

    files = VaeImageProcessor.numpy_to_pil(VaeImageProcessor.pt_to_numpy(images))
    for i, image in zip(chosen, files, strict=True):
        save_png(image, folder / f"{i:06d}.png", {**told, "prompt": rows[i]["prompt"], "seed": seed + i})
