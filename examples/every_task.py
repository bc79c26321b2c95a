"""One generated image through every task of the cascade, in one labelled grid.

    python -m examples.every_task --output tasks.jpg

Nothing is chosen: the seeds are 0, and all settings but those in the labels are the checkpoint's own.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageOps

from imagen_diffusers import (
    ImagenCascadeImg2ImgPipeline,
    ImagenCascadeInpaintPipeline,
    ImagenCascadePipeline,
    ImagenCascadeUpscalePipeline,
)
from imagen_diffusers.finetuning.flags import run_script
from imagen_diffusers.hub.places import find
from imagen_diffusers.images import labelled_grid
from imagen_diffusers.pipelines.outpainting import outpaint

PROMPT = "a large red metal sphere on a gray floor"
BLUE = "a large blue metal sphere on a gray floor"
CUBE = "a small yellow rubber cube on a gray floor"


def every_task(pipe: ImagenCascadePipeline) -> dict[str, Image.Image]:
    """Images by what made them; the first of the prompt alone, and the others of it."""

    def seed() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    changer, painter = ImagenCascadeImg2ImgPipeline.from_pipe(pipe), ImagenCascadeInpaintPipeline.from_pipe(pipe)
    upscaler = ImagenCascadeUpscalePipeline.from_pipe(pipe)
    image = pipe(PROMPT, generator=seed()).images[0]
    mask = Image.new("L", image.size)
    ImageDraw.Draw(mask).rectangle([share * side for share in (0.1, 0.9) for side in image.size], fill="white")
    side = pipe.networks[1].sample_size
    small = image.resize((side, side), Image.Resampling.BOX)
    wide = outpaint(painter, None, image, image.width * 2, image.height, generator=seed())
    return {
        "generate": image,
        "edit: blue, strength 0.9, 1, 1": changer(BLUE, image, strength=[0.9, 1, 1], generator=seed()).images[0],
        "vary, strength 0.3": changer(image=image, strength=0.3, generator=seed()).images[0],
        "edit with a mask: a yellow cube": painter(CUBE, image, mask, jump_n_sample=[4, 1, 1], generator=seed()).images[0],
        "extend to twice the width": wide,
        f"enlarge from {side}px": upscaler(PROMPT, image=small, generator=seed()).images[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="imagen-scenes", help="a bundled pipeline, a folder or a Hub id")
    parser.add_argument("--output", type=Path, default=Path("tasks.jpg"))
    parser.add_argument("--tile", type=int, default=384, help="side of each image in the grid, in pixels")
    args = parser.parse_args()
    pipe = ImagenCascadePipeline.from_pretrained(find(args.model), dtype=torch.float32)
    images = every_task(pipe)
    tiles = [ImageOps.pad(image, (args.tile, args.tile), color="white") for image in images.values()]
    labelled_grid(tiles, list(images), columns=3).save(args.output)


if __name__ == "__main__":
    run_script(main)
