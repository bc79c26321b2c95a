"""Train one stage of the bundled cascade from nothing; run it again to go on from the last checkpoint.

python -m examples.scenes.train base --scenes 40000 --max_train_steps 6000 --train_batch_size 16

From weights that are there, for example the bundled ones: --pretrained pipelines/imagen-scenes.
"""

import argparse
import math
from pathlib import Path

import torch
from transformers import AutoTokenizer, T5EncoderModel

from imagen_diffusers.models import presets
from imagen_diffusers.models.unet import ConditionedUNet
from imagen_diffusers.models.unet_imagen import ImagenUNet2DConditionModel
from imagen_diffusers.models.unet_imagen_efficient import ImagenEfficientUNet2DConditionModel
from imagen_diffusers.schedulers.noise import beta_table, log_snr_table, shift_betas
from imagen_diffusers.training.loop import train_stage
from imagen_diffusers.training.losses import LossSettings
from imagen_diffusers.training.settings import TrainSettings

from .data import VIEWS, SceneDataset

NETWORKS = {
    "base": (ImagenUNet2DConditionModel, presets.SCENES_BASE),
    "sr256": (ImagenEfficientUNet2DConditionModel, presets.SCENES_SR256),
    "sr1024": (ImagenEfficientUNet2DConditionModel, presets.SCENES_SR1024),
}
SUFFIXES = {"base": "", "sr256": "_2", "sr1024": "_3"}  # of its components in the pipeline


def build(stage: str, pretrained: Path | None = None) -> ConditionedUNet:
    """A stage's network with new weights, or in float32 with those of a pipeline folder."""
    network, config = NETWORKS[stage]
    if pretrained is None:
        torch.manual_seed(0)
        return network(**config)
    subfolder = "unet" + SUFFIXES[stage]
    return network.from_pretrained(pretrained, subfolder=subfolder, variant="fp16", dtype=torch.float32)


def noise_curve(stage: str) -> torch.Tensor:
    return log_snr_table(shift_betas(beta_table("squaredcos_cap_v2"), VIEWS[stage].log_snr_shift))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=NETWORKS)
    parser.add_argument("--scenes", type=int, required=True, help="how many scenes to render and train on")
    parser.add_argument("--max_train_steps", type=int, required=True)
    parser.add_argument("--train_batch_size", type=int, default=32)
    parser.add_argument("--learning_rate", type=float, default=5e-4)
    parser.add_argument(
        "--snr_gamma", type=float, default=8.0, help="weight of nearly clean pictures in the loss; less favours composition"
    )
    parser.add_argument("--time_sampling", default="stratified", choices=("stratified", "logit_normal"))
    parser.add_argument("--logit_mean", type=float, default=0.0, help="for logit_normal times; below 0 favours detail over composition")
    parser.add_argument("--logit_std", type=float, default=1.0, help="for logit_normal times")
    parser.add_argument(
        "--max_noise_level",
        type=float,
        default=300.0,
        help="augmentation of low-resolution conditions in training; beyond this, little is left of them to enlarge",
    )
    parser.add_argument("--checkpointing_steps", type=int, default=500)
    parser.add_argument("--mixed_precision", default="bf16", choices=("no", "bf16"))
    parser.add_argument("--dataloader_num_workers", type=int, default=0)
    parser.add_argument("--time_limit", type=float, default=math.inf, help="in seconds; the run ends with a checkpoint")
    parser.add_argument(
        "--torch_compile",
        action="store_true",
        help="measure first: on two cores an Efficient U-Net took 5.0 steps a second with it and 7.4 without",
    )
    parser.add_argument(
        "--pretrained", type=Path, help="a pipeline folder whose weights of this stage are trained on, averages as they are"
    )
    parser.add_argument("--pipeline", type=Path, default=Path("pipelines/imagen-scenes"), help="where text_encoder/ and tokenizer/ are")
    parser.add_argument("--folder", type=Path, default=Path("runs/scenes"), help="where rendered scenes and checkpoints are kept")
    args = parser.parse_args()

    dataset = SceneDataset(args.stage, args.scenes, args.folder)
    unet = build(args.stage, args.pretrained)
    settings = TrainSettings(
        output_dir=args.folder / args.stage,
        max_train_steps=args.max_train_steps,
        train_batch_size=args.train_batch_size,
        learning_rate=args.learning_rate,
        checkpointing_steps=args.checkpointing_steps,
        mixed_precision=args.mixed_precision,
        torch_compile=args.torch_compile,
        dataloader_num_workers=args.dataloader_num_workers,
        time_limit=args.time_limit,
        max_sequence_length=48,  # the longest caption has 41 tokens
        lr_scheduler="cosine",
        lr_warmup_steps=100,
        adam_beta2=0.99,
        ema_decay=0.9995,
        checkpoints_total_limit=2,
        resume_from_checkpoint="latest",
    )
    train_stage(
        unet,
        dataset,
        noise_curve(args.stage),
        settings,
        LossSettings(
            prediction_type="sample",
            weighting="truncated_v",
            snr_gamma=args.snr_gamma,
            time_sampling=args.time_sampling,
            logit_mean=args.logit_mean,
            logit_std=args.logit_std,
            max_noise_level=args.max_noise_level,
        ),
        tokenizer=AutoTokenizer.from_pretrained(args.pipeline / "tokenizer"),
        text_encoder=T5EncoderModel.from_pretrained(args.pipeline / "text_encoder", variant="fp16", dtype=torch.float32),
    )


if __name__ == "__main__":
    main()
