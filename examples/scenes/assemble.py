"""Put the trained stages into the bundled pipeline: half-precision weights, schedulers, recommended settings.

A stage that has no checkpoint stays as it is there.

python -m examples.scenes.assemble --output_dir pipelines/imagen-scenes
"""

import argparse
import math
from pathlib import Path

import torch

from imagen_diffusers import (
    ImagenCascadePipeline,
    ImagenDPMSolverMultistepScheduler,
)
from imagen_diffusers.finetuning.flags import run_script
from imagen_diffusers.schedulers.noise import beta_table, shift_betas

from .data import VIEWS
from .train import NETWORKS, SUFFIXES, build, text_of

# Chosen by looking at images of prompts outside the evaluation's, and guidance by the table of docs/quality.md, of a third of them.
STEPS, GUIDANCE, NOISE_LEVEL = (16, 12, 2), (2.0, 1.5, 1.0), (0.0, 40.0, 20.0)


def scheduler(log_snr_shift: float, *, base: bool, sample_max_value: float | None = None) -> ImagenDPMSolverMultistepScheduler:
    """Of a stage trained along the cosine curve with this shift, to predict the clean image.

    The base's steps add noise anew and begin at log-SNR -8, beyond which it was hardly trained: else objects come twice more often.
    """
    betas = shift_betas(beta_table("squaredcos_cap_v2"), log_snr_shift)
    return ImagenDPMSolverMultistepScheduler(
        trained_betas=betas.tolist(),  # pyright: ignore[reportArgumentType] (diffusers says an array, and saves a list)
        prediction_type="sample",
        algorithm_type="sde-dpmsolver++" if base else "dpmsolver++",
        lambda_min_clipped=-4.0 if base else -math.inf,  # half the log-SNR
        thresholding=True,
        sample_max_value=sample_max_value,  # pyright: ignore[reportArgumentType] (None is the paper's: no cap)
        timestep_spacing="linspace" if base else "trailing",  # trailing steps would be too few from where it begins
    )


def assemble(folder: Path, pipeline: Path) -> ImagenCascadePipeline:
    """The pipeline with every stage that has a checkpoint in `folder` in the place of its own, in float32."""
    components = {}
    for stage, (network, _) in NETWORKS.items():
        trained, slot = folder / stage / "unet", "unet" + SUFFIXES[stage]
        components[slot] = network.from_pretrained(trained) if trained.exists() else build(stage, pipeline)
        components[slot].register_to_config(_name_or_path=pipeline.name)  # and not a folder of this machine
        components["scheduler" + SUFFIXES[stage]] = scheduler(VIEWS[stage].log_snr_shift, base=stage == "base")
    return ImagenCascadePipeline(
        **text_of(pipeline, f"examples.scenes.train_text_encoder --output_dir {pipeline}"),
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
    parser.add_argument("--max_shard_size", default="10GB", help="of a file of weights")
    args = parser.parse_args()
    pipe = assemble(args.folder, args.output_dir).to(torch.float16)
    pipe.save_pretrained(args.output_dir, variant="fp16", max_shard_size=args.max_shard_size)


if __name__ == "__main__":
    run_script(main)
