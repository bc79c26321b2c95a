"""The package's trainer and imagen-pytorch's, on the same scenes, for the same time, with as many parameters.

    python -m benchmarks.train --minutes 5

Both train a 64px base from nothing on rendered scenes (drawn once into runs/scenes), in bfloat16, with the same batches of images and
text embeddings, the same learning rate and its warm-up. Then both are asked for the clean image on the same held-out scenes with the
same noise, and the root mean square error is printed for each noise level. `ours, patches of 1` is our network without the patches that
the small machine asks for, on full-size feature maps as the other.
"""

import argparse
import tempfile
import time
import warnings
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from examples.scenes.data import TEST_SEEDS, SceneDataset
from imagen_diffusers import ImagenUNet2DConditionModel, bundled
from imagen_diffusers.models import configurations
from imagen_diffusers.schedulers.noise import alpha_sigma, beta_table, log_snr_at, log_snr_table, q_sample
from imagen_diffusers.text.encoders import load_text_encoder, load_tokenizer
from imagen_diffusers.text.encoding import TextEmbedding, encode
from imagen_diffusers.training.examples import Batch, Example, Visits, collate, on_device
from imagen_diffusers.training.loop import train_stage
from imagen_diffusers.training.losses import LossSettings
from imagen_diffusers.training.order import Share, StepSampler
from imagen_diffusers.training.run_settings import TrainSettings

from .counting import flop
from .imagen_pytorch_package import load

BATCH, LEARNING_RATE, WARMUP, HELD_OUT = 16, 3e-4, 100, 64
LEVELS = (-4.0, -2.0, 0.0, 2.0, 4.0)
TABLE = log_snr_table(beta_table("squaredcos_cap_v2"))
# 13.9 M parameters in patches of 4; without patches it takes four levels to come as low.
OURS = configurations.SCENES_BASE
OURS_WITHOUT_PATCHES = {
    **OURS,
    "patch_size": 1,
    "block_out_channels": (32, 64, 128, 256),
    "attention_levels": (False, False, True, True),
}
THEIRS = {
    "dim": 80,
    "dim_mults": (1, 2, 3),
    "num_resnet_blocks": 1,
    "layer_attns": (False, True, True),
    "layer_cross_attns": (False, True, True),
    "text_embed_dim": 128,
}


class Ours:
    """Our network and `train_stage`."""

    def __init__(self, config: dict):
        torch.manual_seed(0)
        self.network = ImagenUNet2DConditionModel(**config)

    def train(self, dataset: SceneDataset, seconds: float, tokenizer, text_encoder) -> tuple[int, float]:
        with tempfile.TemporaryDirectory() as folder:
            settings = TrainSettings(
                output_dir=Path(folder),
                max_train_steps=10**6,
                train_batch_size=BATCH,
                learning_rate=LEARNING_RATE,
                lr_scheduler="constant_with_warmup",
                lr_warmup_steps=WARMUP,
                mixed_precision="bf16",
                use_ema=False,
                checkpointing_steps=10**6,
                max_sequence_length=48,
                report_to="none",
                time_limit=seconds,
            )
            loss = LossSettings(prediction_type="sample", weighting="truncated_v", snr_gamma=8.0)
            train_stage(self.network, dataset, TABLE, settings, loss, tokenizer=tokenizer, text_encoder=text_encoder)
            return int(next(Path(folder).glob("checkpoint-*")).name.split("-")[1]), seconds

    def x0(self, noisy: Tensor, log_snr: float, batch: Batch, text) -> Tensor:
        time_of = (TABLE - log_snr).abs().argmin().float()  # the curve falls, so the nearest entry is the time
        return self.network(noisy, time_of, text.embeds, text.mask).sample


class Theirs:
    """imagen-pytorch's network and trainer, with its defaults but for size, learning rate and warm-up."""

    def __init__(self):
        package = load()
        torch.manual_seed(0)
        self.network = package.Unet(**THEIRS)
        self.imagen = package.Imagen((self.network,), image_sizes=(64,), text_embed_dim=128, timesteps=1000)
        self.network = self.imagen.unets[0]
        self.trainer = package.ImagenTrainer(self.imagen, lr=LEARNING_RATE, warmup_steps=WARMUP, precision="bf16", use_ema=False)

    def train(self, dataset: SceneDataset, seconds: float, tokenizer, text_encoder) -> tuple[int, float]:
        sampler = StepSampler(len(dataset), Share(BATCH), seed=0, start=0, stop=10**6)
        start, step = time.perf_counter(), 0
        for batch in DataLoader(Visits(dataset), batch_sampler=sampler, collate_fn=_batch):
            text = encode(batch["prompt"], tokenizer, text_encoder, 48)
            self.trainer(batch["pixel_values"] / 2 + 0.5, text_embeds=text.embeds, text_masks=text.mask, unet_number=1)
            self.trainer.update(unet_number=1)
            step += 1
            if time.perf_counter() - start > seconds:
                break
        return step, time.perf_counter() - start

    def x0(self, noisy: Tensor, log_snr: float, batch: Batch, text) -> Tensor:
        level = torch.full((len(noisy),), log_snr)
        noise = self.network(noisy, level, text_embeds=text.embeds, text_mask=text.mask, cond_drop_prob=0.0)
        alpha, sigma = alpha_sigma(torch.tensor(log_snr))
        return (noisy - sigma * noise) / alpha


def _batch(examples: list[Example]) -> Batch:
    return on_device(collate(examples), torch.device("cpu"))


@torch.no_grad()
def errors(trainee: Ours | Theirs, held_out: Batch, text) -> list[float]:
    """Root mean square error of the clean image, clipped to [-1, 1], at each of `LEVELS`."""
    trainee.network.eval()
    found, images = [], held_out["pixel_values"]
    for n, wanted in enumerate(LEVELS):
        log_snr = log_snr_at(TABLE, (TABLE - wanted).abs().argmin().float()).item()
        noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(n))
        noisy = q_sample(images, noise, torch.full((len(images),), log_snr))
        guess = trainee.x0(noisy, log_snr, held_out, text).clamp(-1, 1)
        found.append((guess - images).square().mean().sqrt().item())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0, help="of training, each")
    parser.add_argument("--scenes", type=int, default=60_000)
    parser.add_argument("--folder", type=Path, default=Path("runs/scenes"), help="where rendered scenes are kept")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    folder = bundled("imagen-scenes")
    tokenizer = load_tokenizer(folder / "tokenizer")
    text_encoder = load_text_encoder(folder / "text_encoder", variant="fp16", dtype=torch.float32)
    dataset = SceneDataset("base", args.scenes, args.folder, object_weight=1.0)
    unseen = SceneDataset("base", HELD_OUT, args.folder, first_seed=TEST_SEEDS)
    held_out = _batch([unseen.shown(i) for i in range(HELD_OUT)])
    text = encode(held_out["prompt"], tokenizer, text_encoder, 48)

    print("| | parameters | GFLOP | steps | images per second | " + " | ".join(f"log-SNR {level:g}" for level in LEVELS) + " |")
    print("|---|---:|---:|---:|---:|" + "---:|" * len(LEVELS), flush=True)
    for name, make in (
        ("imagen-pytorch", Theirs),
        ("ours", lambda: Ours(OURS)),
        ("ours, patches of 1", lambda: Ours(OURS_WITHOUT_PATCHES)),
    ):
        trainee = make()
        steps, seconds = trainee.train(dataset, 60 * args.minutes, tokenizer, text_encoder)
        size = sum(p.numel() for p in trainee.network.parameters()) / 1e6
        one: Batch = _batch([unseen.shown(0)])
        words = TextEmbedding(text.embeds[:1], text.mask[:1])
        work = flop(lambda trainee=trainee, one=one, words=words: trainee.x0(one["pixel_values"], 0.0, one, words))
        cells = [
            name,
            f"{size:.1f} M",
            f"{work / 1e9:.1f}",
            str(steps),
            f"{steps * BATCH / seconds:.1f}",
            *(f"{e:.3f}" for e in errors(trainee, held_out, text)),
        ]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
