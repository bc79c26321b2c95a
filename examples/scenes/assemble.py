"""Join the trained stages to the bundled pipeline: half-precision weights, schedulers, recommended settings.

python -m examples.scenes.assemble --output_dir pipelines/imagen-scenes
"""

import argparse
from pathlib import Path

import torch
from transformers import AutoTokenizer, T5EncoderModel

from imagen_diffusers import (
    ImagenCascadePipeline,
    ImagenDDPMScheduler,
    ImagenDPMSolverMultistepScheduler,
    ImagenEfficientUNet2DConditionModel,
)

from .data import VIEWS
from .train import NETWORKS

# Chosen by looking at pictures of prompts outside the evaluation's.
STEPS, GUIDANCE, NOISE_LEVEL = (16, 8, 4), (3.0, 1.5, 1.0), (0.0, 100.0, 100.0)


def scheduler(stage: str) -> ImagenDPMSolverMultistepScheduler:
    curve = ImagenDDPMScheduler(prediction_type="sample", log_snr_shift=VIEWS[stage].log_snr_shift)
    return ImagenDPMSolverMultistepScheduler.from_config(curve.config, timestep_spacing="trailing")


def assemble(folder: Path, text_folder: Path) -> ImagenCascadePipeline:
    """The pipeline of every stage that has a checkpoint in `folder`, in float32."""
    components = {}
    for stage, number in zip(NETWORKS, ("", "_2", "_3"), strict=True):
        if (folder / stage / "unet").exists():
            components["unet" + number] = ImagenEfficientUNet2DConditionModel.from_pretrained(folder / stage / "unet")
            components["scheduler" + number] = scheduler(stage)
    return ImagenCascadePipeline(
        tokenizer=AutoTokenizer.from_pretrained(text_folder / "tokenizer"),
        text_encoder=T5EncoderModel.from_pretrained(text_folder / "text_encoder", variant="fp16", dtype=torch.float32),
        **components,
        max_sequence_length=64,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        noise_level=NOISE_LEVEL,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path("runs/scenes"))
    args = parser.parse_args()
    assemble(args.folder, args.output_dir).to(torch.float16).save_pretrained(args.output_dir, variant="fp16")


if __name__ == "__main__":
    main()
