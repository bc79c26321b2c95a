"""The error on examples that are not trained on, by noise level, with the same noise every time: what recipes are compared by."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from imagen_diffusers.sampling.network import StageNetwork, adapt
from imagen_diffusers.schedulers.noise import alpha_sigma, q_sample, timestep_at
from imagen_diffusers.schedulers.prediction import to_x0
from imagen_diffusers.text.encoding import TextEmbedding
from imagen_diffusers.text.prompts import PLAIN_TEXT, TextRules, read_prompts

from .examples import Example, collate, on_device
from .folders import in_one_rename
from .losses import LossSettings
from .network import with_cond_images
from .processes import added_up, place_in_group

LOG_SNRS = (-6.0, -4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0)  # from where the layout is settled to where detail is
FILE = "validation.jsonl"


class HeldOut:
    """Examples a stage is not trained on; called with its network, the mean squared error of the clean image by log-SNR.

    The figures are named "log_snr_-6" and so on, whatever the network predicts. Noise depends on the seed and the example alone.
    Processes that compute together call it together: each measures, and asks for, every so manieth batch, and all get the same figures,
    those of one process but for the rounding of sums. `errors` is of all examples, whoever calls it.

    Args:
        examples: images and captions (not embeddings), for super-resolution with `low_res`, for networks conditioned on images with
            `cond_images`.
        log_snr_table: the noise curve of the stage.
        loss: what the network predicts, and how far conditions are noised in training: here evenly over the same range.
        tokenizer, text_encoder: for networks with text.
        text_rules: how the checkpoint reads captions, but for their length.
        max_sequence_length: tokens of a caption that are read.
        log_snrs: the levels.
        batch_size: examples at a time; errors do not depend on it.
        seed: of the noise.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        log_snr_table: Tensor,
        loss: LossSettings,
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        text_encoder: PreTrainedModel | None = None,
        text_rules: TextRules = PLAIN_TEXT,
        max_sequence_length: int = 128,
        log_snrs: Sequence[float] = LOG_SNRS,
        batch_size: int = 32,
        seed: int = 0,
    ):
        if not examples:
            raise ValueError("the validation set is empty")
        self.examples, self.table, self.loss, self.log_snrs = examples, log_snr_table, loss, tuple(log_snrs)
        self.tokenizer, self.text_encoder = tokenizer, text_encoder
        self.text_rules = text_rules._replace(max_sequence_length=max_sequence_length)
        self.batch_size, self.seed = batch_size, seed

    def __call__(self, unet: ModelMixin) -> dict[str, float]:
        network, (rank, processes) = adapt(unet), place_in_group()
        batches, sums = self._batches(), torch.zeros(len(self.log_snrs))
        for begin in range(0, len(batches), processes):
            number = begin + rank
            # A network in shards computes on all processes or on none, so one without a batch in the last round repeats one.
            part = self._errors_of(network, batches[number if number < len(batches) else rank % len(batches)], None)
            if number < len(batches):
                sums += part.mean((2, 3)).sum(1)
        means = added_up(sums, network.module.device) / len(self.examples)
        return {level_name(level): mean.item() for level, mean in zip(self.log_snrs, means, strict=True)}

    def errors(self, unet: ModelMixin, prompts: Sequence[str] | None = None) -> Tensor:
        """Squared errors of the clean image, averaged over channels: (levels, N, H, W), on the CPU.

        Args:
            unet: the stage's network, in evaluation mode.
            prompts: in place of the examples' own.
        """
        network = adapt(unet)
        return torch.cat([self._errors_of(network, rows, prompts) for rows in self._batches()], dim=1)

    def _batches(self) -> list[range]:
        count = len(self.examples)
        return [range(start, min(start + self.batch_size, count)) for start in range(0, count, self.batch_size)]

    @torch.no_grad()
    def _errors_of(self, network: StageNetwork, rows: range, prompts: Sequence[str] | None) -> Tensor:
        device = network.module.device
        batch = on_device(collate([self.examples[i] for i in rows]), device)
        images = batch["pixel_values"]
        noise, low_res_noise = torch.stack([self._noise(i, images.shape[1:]) for i in rows], dim=1).to(device)
        text = low_res = level = None
        if network.text_dim is not None:
            own = batch["prompt"] if prompts is None else [prompts[i] for i in rows]  # pyright: ignore[reportTypedDictNotRequiredAccess]
            assert self.tokenizer is not None and self.text_encoder is not None
            text = TextEmbedding(*(x.to(device) for x in read_prompts(own, self.tokenizer, self.text_encoder, self.text_rules)))
        if "low_res" in batch:
            places = torch.tensor([(i + 0.5) / len(self.examples) for i in rows], device=device)
            level = places * self.loss.max_noise_level
            low_res = network.condition(batch["low_res"], low_res_noise, level)
        arguments = with_cond_images(network, network.arguments(text, low_res, level), batch.get("cond_images"), images)
        return torch.stack([self._errors_at(network, images, noise, log_snr, arguments) for log_snr in self.log_snrs])

    def _errors_at(self, network: StageNetwork, images: Tensor, noise: Tensor, level: float, arguments: dict[str, Any]) -> Tensor:
        assert self.loss.prediction_type is not None
        table = self.table.to(images.device)
        times = network.trained_at(timestep_at(table, torch.full((len(images),), level, device=images.device)))
        log_snr = network.log_snr(table, times)  # as noisy as the network is told, which may know whole steps alone
        noisy = q_sample(images, noise, log_snr)
        output = network.predict(noisy, times, arguments)[:, : network.channels]
        alpha, sigma = alpha_sigma(log_snr[:, None, None, None])
        return (to_x0(output, noisy, alpha, sigma, self.loss.prediction_type) - images).square().mean(1).cpu()

    def _noise(self, index: int, shape: Sequence[int]) -> Tensor:
        """For the image and for its low-resolution condition: (2, C, H, W)."""
        return torch.randn(2, *shape, generator=torch.Generator().manual_seed(self.seed * 1_000_003 + index))


def level_name(log_snr: float) -> str:
    return f"log_snr_{log_snr:g}"


def write_figures(folder: Path, step: int, figures: dict[str, float]) -> None:
    """Add a line to `validation.jsonl`, in one rename; lines of later steps, of a run that went on from an earlier checkpoint, go."""
    path = folder / FILE
    kept = [line for line in read_figures(folder) if line["step"] < step]
    with in_one_rename(path) as part:
        part.write_text("".join(json.dumps(line) + "\n" for line in [*kept, {"step": step, **figures}]))


def read_figures(folder: Path) -> list[dict[str, float]]:
    """The lines of a run's `validation.jsonl`, first to last; none where there is no such file."""
    path = folder / FILE
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
