"""Put the trained stages and their text encoder into one pipeline folder, in half precision, with the encoder's licence, a list of
the things by name, the judge once it is there, and of emoji a notice of what they are made of.

python -m examples.emoji.assemble --folder runs/emoji --output_dir pipelines/imagen-emoji
"""

import argparse
import shutil
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

import torch

from examples.scenes.assemble import NOISE_LEVEL, STEPS, scheduler
from examples.scenes.train import SUFFIXES, text_of
from imagen_diffusers import ImagenCascadePipeline
from imagen_diffusers.finetuning.flags import run_script

from .data import ENCODERS_LICENSE, NOTICE, VIEWS, holds_emoji
from .judge import FILE
from .things import LINES, read_things
from .train import NETWORKS

NAME, THINGS = "imagen-emoji", "names.txt"
# Static thresholding. The dynamic one divides the whole image by what goes beyond [-1, 1], and a plain bright background is that: yellow
# comes out olive.
MAX_VALUE = 1.0
GUIDANCE = (3.0, 1.5, 1.0)


def assemble(folder: Path, name: str) -> ImagenCascadePipeline:
    """The stages that were trained in `folder`, in float32: the base, and super-resolution as far as it is there.

    Args:
        folder: that of the training.
        name: what the networks' configurations call the cascade.

    Raises:
        OSError: where the base is not there.
    """
    stages = list(takewhile(lambda stage: (folder / stage / "unet" / "config.json").exists(), VIEWS))
    print(f"stages of {folder}: {', '.join(stages) or 'none'}")
    if not stages:
        raise OSError(
            f"{folder / 'base' / 'unet'} is not there; examples.emoji.train --stage base writes it, when its time or its steps end"
        )
    components = {}
    for stage in stages:
        network, _ = NETWORKS[stage]
        unet = components["unet" + SUFFIXES[stage]] = network.from_pretrained(folder / stage / "unet")
        unet.register_to_config(_name_or_path=name)  # and not a folder of this machine
        shift = VIEWS[stage].log_snr_shift
        components["scheduler" + SUFFIXES[stage]] = scheduler(shift, base=stage == "base", sample_max_value=MAX_VALUE)
    return ImagenCascadePipeline(
        **text_of(folder, f"examples.emoji.data --folder {folder}"),
        **components,
        max_sequence_length=64,
        num_inference_steps=STEPS[: len(stages)],
        guidance_scale=GUIDANCE[: len(stages)],
        noise_level=NOISE_LEVEL[: len(stages)],
    )


def finish_card(folder: Path) -> None:
    """Give the card that `save_pretrained` wrote the project's licence, and in the bundled folder its name in place of a path."""
    path = folder / "README.md"
    card = path.read_text("utf-8").replace("license: unknown", "license: apache-2.0")
    card = card.replace(f'"{folder}"', f'"{NAME}"') if folder.resolve().name == NAME else card
    path.write_text(
        card + "\n`NOTICE` says what the networks were trained on, where the text encoder is from, and their licences.\n", "utf-8"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/emoji"), help="where stages, tokenizer and text encoder are")
    parser.add_argument("--output_dir", type=Path, required=True)
    args = parser.parse_args(arguments)
    own_card = not (args.output_dir / "README.md").exists()
    notice, judge = args.folder / NOTICE.name, args.folder / "judge" / FILE
    of_emoji, name = holds_emoji(args.folder), args.output_dir.resolve().name
    assemble(args.folder, name).to(torch.float16).save_pretrained(args.output_dir, variant="fp16", max_shard_size="15MB")
    if own_card and of_emoji:
        finish_card(args.output_dir)
    if of_emoji:
        shutil.copyfile(notice, args.output_dir / NOTICE.name)
    if (args.folder / ENCODERS_LICENSE).exists():
        shutil.copyfile(args.folder / ENCODERS_LICENSE, args.output_dir / ENCODERS_LICENSE)
    if (args.folder / LINES).exists():
        names = sorted({thing.name for thing in read_things(args.folder)})
        (args.output_dir / THINGS).write_text("".join(f"{name}\n" for name in names), "utf-8")
    if judge.exists():
        (args.output_dir / "judge").mkdir(exist_ok=True)
        shutil.copyfile(judge, args.output_dir / "judge" / FILE)


if __name__ == "__main__":
    run_script(main)
