"""Put the trained stages and their text encoder into one pipeline folder, in half precision, with a notice and licences of what they are
made of.

python -m examples.emoji.assemble --folder runs/emoji --output_dir pipelines/imagen-emoji
"""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from examples.scenes.assemble import GUIDANCE, NOISE_LEVEL, STEPS, scheduler
from examples.scenes.train import SUFFIXES
from imagen_diffusers import ImagenCascadePipeline
from imagen_diffusers.finetuning.flags import run_script
from imagen_diffusers.text.encoders import load_text_encoder, load_tokenizer

from .data import VIEWS
from .train import NETWORKS

NOTICE, LICENSE = Path(__file__).with_name("NOTICE"), Path(__file__).parents[2] / "LICENSE"  # the latter is Apache-2.0
NAME = "imagen-emoji"


def assemble(folder: Path) -> ImagenCascadePipeline:
    """The stages that were trained in `folder`, in float32: the base, and super-resolution once it is there.

    Raises:
        OSError: where the base is not there.
    """
    stages = [stage for stage in VIEWS if (folder / stage / "unet" / "config.json").exists()]
    if "base" not in stages:
        raise OSError(
            f"{folder / 'base' / 'unet'} is not there; examples.emoji.train --stage base writes it, when its time or its steps end"
        )
    components = {}
    for stage in stages:
        network, _ = NETWORKS[stage]
        unet = components["unet" + SUFFIXES[stage]] = network.from_pretrained(folder / stage / "unet")
        unet.register_to_config(_name_or_path=NAME)  # and not a folder of this machine
        components["scheduler" + SUFFIXES[stage]] = scheduler(VIEWS[stage].log_snr_shift, base=stage == "base")
    return ImagenCascadePipeline(
        tokenizer=load_tokenizer(folder / "tokenizer"),
        text_encoder=load_text_encoder(folder / "text_encoder", variant="fp16", dtype=torch.float32),
        **components,
        max_sequence_length=64,
        num_inference_steps=STEPS[: len(stages)],
        guidance_scale=GUIDANCE[: len(stages)],
        noise_level=NOISE_LEVEL[: len(stages)],
    )


def finish_card(folder: Path) -> None:
    """Give the card that `save_pretrained` wrote the project's licence, and the cascade's name in place of the folder's."""
    path = folder / "README.md"
    card = path.read_text("utf-8").replace("license: unknown", "license: apache-2.0").replace(f'"{folder}"', f'"{NAME}"')
    path.write_text(
        card + "\n`NOTICE` says what the networks were trained on, where the text encoder is from, and their licences.\n", "utf-8"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/emoji"), help="where stages, tokenizer and text encoder are")
    parser.add_argument("--output_dir", type=Path, required=True)
    args = parser.parse_args(arguments)
    own_card = not (args.output_dir / "README.md").exists()
    assemble(args.folder).to(torch.float16).save_pretrained(args.output_dir, variant="fp16", max_shard_size="15MB")
    if own_card:
        finish_card(args.output_dir)
    shutil.copyfile(NOTICE, args.output_dir / NOTICE.name)
    shutil.copyfile(LICENSE, args.output_dir / "text_encoder" / "LICENSE.txt")  # diffusers reads endings of all files there


if __name__ == "__main__":
    run_script(main)
