"""Train one stage, on accelerate: step, log, save, resume. Knows networks, noise and text; no pipeline.

Everything random in a step comes from a generator seeded by the run's seed and the step, and the data of a step from the
same two numbers, so a resumed run continues as if it had never stopped.
"""

import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase, T5EncoderModel

from imagen_diffusers.models.unet import ConditionedUNet
from imagen_diffusers.text.t5 import TextEmbedding, encode

from .data import StepSampler, collate
from .losses import LossSettings, stage_loss

STATE_FILE = "state.pt"


@dataclass(frozen=True)
class TrainSettings:
    """One run; names follow diffusers' training scripts.

    `ema_decay` is reached gradually. `time_limit` in seconds ends the run early, with a checkpoint.
    """

    output_dir: Path
    max_train_steps: int
    train_batch_size: int = 32
    learning_rate: float = 3e-4
    lr_scheduler: str = "cosine"
    lr_warmup_steps: int = 200
    adam_weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    ema_decay: float = 0.9995
    mixed_precision: str = "bf16"
    channels_last: bool = True
    checkpointing_steps: int = 500
    dataloader_num_workers: int = 0
    max_sequence_length: int = 64
    seed: int = 0
    time_limit: float = math.inf
    loss: LossSettings = field(default_factory=LossSettings)


def train_stage(
    unet: ConditionedUNet,
    dataset: Dataset,
    log_snr_table: Tensor,
    settings: TrainSettings,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    text_encoder: T5EncoderModel | None = None,
    on_checkpoint: Callable[[ConditionedUNet, int], None] | None = None,
) -> ConditionedUNet:
    """Fit `unet` to `dataset` and return it with its averaged (EMA) weights.

    Resumes from `settings.output_dir` if a checkpoint lies there.

    Args:
        unet: any network of this package, in float32.
        dataset: yields `Example`s, by index.
        log_snr_table: the noise curve the stage will be sampled with.
        settings: the run.
        tokenizer, text_encoder: for a network with text; frozen.
        on_checkpoint: called with the averaged network at each checkpoint, to draw validation pictures.
    """
    accelerator = Accelerator(mixed_precision=settings.mixed_precision)
    unet.train()
    if settings.channels_last:
        unet.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    ema = EMAModel(unet.parameters(), decay=settings.ema_decay, use_ema_warmup=True, power=0.75, foreach=True)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=settings.learning_rate, betas=(0.9, 0.99), weight_decay=settings.adam_weight_decay)
    schedule = get_scheduler(
        settings.lr_scheduler, optimizer, num_warmup_steps=settings.lr_warmup_steps, num_training_steps=settings.max_train_steps
    )
    run = _Run(accelerator, unet, ema, optimizer, schedule, settings)
    start = run.resume()
    model = accelerator.prepare(unet)
    ema.to(accelerator.device)
    if text_encoder is not None:
        text_encoder.to(accelerator.device).eval().requires_grad_(False)

    sampler = StepSampler(len(dataset), settings.train_batch_size, seed=settings.seed, start=start, stop=settings.max_train_steps)  # pyright: ignore[reportArgumentType]
    loader = DataLoader(dataset, batch_sampler=sampler, collate_fn=collate, num_workers=settings.dataloader_num_workers)
    progress = tqdm(
        loader, total=settings.max_train_steps, initial=start, desc="training", mininterval=5, disable=not accelerator.is_main_process
    )
    step = start
    for step, batch in enumerate(progress, start=start + 1):
        text = _encode(batch.get("prompt"), tokenizer, text_encoder, settings.max_sequence_length, accelerator.device)
        low_res = batch["low_res"].to(accelerator.device) if "low_res" in batch else None
        with accelerator.autocast():
            losses, times = stage_loss(
                model,
                batch["pixel_values"].to(accelerator.device),
                log_snr_table=log_snr_table,
                settings=settings.loss,
                generator=torch.Generator(accelerator.device).manual_seed(settings.seed * 1_000_003 + step),
                text=text,
                low_res=low_res,
            )
        loss = losses.mean()
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the loss at step {step} is {loss.item()}; lower the learning rate and resume from {settings.output_dir}"
            )
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(unet.parameters(), settings.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        ema.step(unet.parameters())
        run.log(step, losses.detach(), times)
        out_of_time = progress.format_dict["elapsed"] > settings.time_limit
        if step % settings.checkpointing_steps == 0 or step == settings.max_train_steps or out_of_time:
            run.save(step, on_checkpoint)
        if out_of_time:
            break
    ema.copy_to(unet.parameters())
    return unet


def _encode(prompts, tokenizer, text_encoder, max_length: int, device: torch.device) -> TextEmbedding | None:
    if text_encoder is None or prompts is None:
        return None
    text = encode(prompts, tokenizer, text_encoder, max_length)
    return TextEmbedding(text.embeds.to(device), text.mask.to(device))


@dataclass
class _Run:
    """What a checkpoint holds, and the running averages of the log."""

    accelerator: Accelerator
    unet: ConditionedUNet
    ema: EMAModel
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    settings: TrainSettings
    recent: list[tuple[float, float]] = field(default_factory=list)

    def resume(self) -> int:
        """Load the last checkpoint, if there is one; returns the number of steps done."""
        path = self.settings.output_dir / STATE_FILE
        if not path.exists():
            return 0
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.unet.load_state_dict(state["unet"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        return state["step"]

    def save(self, step: int, on_checkpoint: Callable[[ConditionedUNet, int], None] | None) -> None:
        """Write a checkpoint in one rename, then the averaged network as a Hub-layout folder."""
        if not self.accelerator.is_main_process:
            return
        folder = self.settings.output_dir
        folder.mkdir(parents=True, exist_ok=True)
        parts = {"unet": self.unet, "ema": self.ema, "optimizer": self.optimizer, "schedule": self.schedule}
        state = {name: part.state_dict() for name, part in parts.items()}
        torch.save({**state, "step": step}, folder / (STATE_FILE + ".part"))
        os.replace(folder / (STATE_FILE + ".part"), folder / STATE_FILE)
        self.ema.store(self.unet.parameters())
        self.ema.copy_to(self.unet.parameters())
        self.unet.save_pretrained(folder / "unet.part")
        shutil.rmtree(folder / "unet", ignore_errors=True)
        os.replace(folder / "unet.part", folder / "unet")
        if on_checkpoint is not None:
            self.unet.eval()
            on_checkpoint(self.unet, step)
            self.unet.train()
        self.ema.restore(self.unet.parameters())

    def log(self, step: int, losses: Tensor, times: Tensor, every: int = 50) -> None:
        """Append to log.jsonl the mean loss, and its mean in four equal ranges of time, finest first."""
        self.recent += zip(losses.tolist(), times.tolist(), strict=True)
        if step % every or not self.accelerator.is_main_process:
            return
        ranges: list[list[float]] = [[], [], [], []]
        for loss, time in self.recent:
            ranges[min(int(time / 250), 3)].append(loss)
        row = {
            "step": step,
            "loss": sum(x for x, _ in self.recent) / len(self.recent),
            "by_time": [sum(r) / max(len(r), 1) for r in ranges],
        }
        self.settings.output_dir.mkdir(parents=True, exist_ok=True)
        with open(self.settings.output_dir / "log.jsonl", "a") as file:
            file.write(json.dumps({**row, "lr": self.schedule.get_last_lr()[0]}) + "\n")
        self.recent.clear()
