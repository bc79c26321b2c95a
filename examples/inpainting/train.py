"""Fine-tune the bundled base into an inpainting network, save the cascade with it, and measure it beside the base it came from.

python -m examples.inpainting.train --output_dir runs/inpainting --scenes 8000 --max_train_steps 900

The base becomes conditioned on four channels: a mask, one where pixels are hidden, and the image with these pixels black. Run it again
to go on from the last checkpoint, or, after the last step, to measure alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.modeling_utils import ModelMixin
from PIL import Image, ImageDraw
from torch import Tensor

from examples.scenes import train as scenes
from examples.scenes.data import TEST_SEEDS, SceneDataset
from imagen_diffusers.finetuning.flags import ModelSettings, StageValidationSettings, parse, run_script
from imagen_diffusers.finetuning.one_stage import fit_stage, load_cascade, noise_curve, save_cascade
from imagen_diffusers.images import labelled_grid
from imagen_diffusers.models.conditioning_images import with_cond_channels
from imagen_diffusers.pipelines.cascade import Cascade
from imagen_diffusers.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline
from imagen_diffusers.pipelines.pipeline_imagen_cascade_inpaint import ImagenCascadeInpaintPipeline
from imagen_diffusers.schedulers.noise import resize
from imagen_diffusers.text.prompts import TextRules
from imagen_diffusers.training.examples import Conditioned, Example
from imagen_diffusers.training.losses import LossSettings
from imagen_diffusers.training.run_settings import TrainSettings
from imagen_diffusers.training.validation import HeldOut

CHANNELS = 4
LOG_SNRS = (-4.0, -2.0, 0.0)
BATCH = 16
JUMPS = 4
RECIPE = {**scenes.RECIPE, "muon_learning_rate": 6e-4, "train_batch_size": 32, "ema_decay": 0.998}


@dataclass(frozen=True)
class InpaintingSettings:
    """What is trained on, and what is measured."""

    scenes: int = field(default=8000, metadata={"help": "How many scenes to render and train on."})
    measured: int = field(default=128, metadata={"help": "How many scenes that are not trained on to measure on."})
    folder: Path = field(default=Path("runs/scenes"), metadata={"help": "Where renders are kept."})


def random_mask(side: int, rng: np.random.Generator) -> Tensor:
    """One to three boxes and strokes of a brush: uint8 (1, side, side), 1 where pixels are hidden."""
    mask = Image.new("L", (side, side))
    brush = ImageDraw.Draw(mask)
    for _ in range(rng.integers(1, 4)):
        if rng.random() < 0.5:
            width, height = rng.uniform(0.2, 0.6, 2) * side
            left, top = rng.uniform(0, side - width), rng.uniform(0, side - height)
            brush.rectangle((left, top, left + width, top + height), fill=1)
        else:
            walk = rng.uniform(0.2, 0.8, 2) * side + np.cumsum(rng.normal(0, 0.15 * side, (6, 2)), axis=0)
            brush.line([tuple(point) for point in walk.clip(0, side)], fill=1, width=int(rng.uniform(0.08, 0.2) * side), joint="curve")
    return torch.from_numpy(np.array(mask))[None]


def condition(image: Tensor, mask: Tensor) -> Tensor:
    """What the network is conditioned on: an image (3, H, W) and a mask (1, H, W), both uint8, to (4, H, W)."""
    return torch.cat((255 * mask, image * (1 - mask)))


def masked(image: Tensor, rng: np.random.Generator) -> Tensor:
    return condition(image, random_mask(image.shape[-1], rng))


class Measured:
    """Scenes that are not trained on, with parts hidden, and what a network makes of these parts."""

    def __init__(self, pipe: ImagenCascadePipeline, count: int, folder: Path):
        data = SceneDataset("base", count, folder, first_seed=TEST_SEEDS, compile=False)
        self.pipe, self.examples = pipe, [data.shown(i) for i in range(count)]
        self.images = torch.stack([example["pixel_values"] for example in self.examples])
        masks = [random_mask(self.images.shape[-1], np.random.default_rng((TEST_SEEDS, i))) for i in range(count)]
        self.conditions = torch.stack([condition(image, mask) for image, mask in zip(self.images, masks, strict=True)])
        self.hidden = torch.stack(masks).float()  # N 1 H W
        self.truth = self.images.float() / 127.5 - 1

    def figures(self, unet: ModelMixin) -> tuple[list[float], Tensor]:
        """Squared errors of images in [-1, 1]: hidden pixels generated, known ones generated, hidden ones in one evaluation at each of
        `LOG_SNRS`. And the generated images (N, 3, H, W), in [0, 1].
        """
        self.pipe.unet = unet
        given = unet.config["cond_channels"] > 0
        images = self._generated(self.pipe, {"cond_images": self.conditions} if given else {})
        shown = zip(self.examples, self.conditions, strict=True)
        examples = [Example(**{**example, "cond_images": cond}) for example, cond in shown] if given else self.examples
        rules, config = TextRules.of(self.pipe.config), self.pipe.scheduler.config
        text = {"tokenizer": self.pipe.tokenizer, "text_encoder": self.pipe.text_encoder, "text_rules": rules}
        text |= {"max_sequence_length": rules.max_sequence_length, "log_snrs": LOG_SNRS}
        loss = LossSettings(prediction_type=config["prediction_type"])
        at_once = HeldOut(examples, noise_curve(self.pipe.scheduler), loss, **text).errors(unet)
        of_levels = [self.mean(level[:, None], self.hidden) for level in at_once]
        return [*self.in_parts(images), *of_levels], images

    def repainted(self) -> list[float]:
        """The first two of the present network's when it paints what is hidden without having been trained to (RePaint)."""
        painter = ImagenCascadeInpaintPipeline.from_pipe(self.pipe)
        painter.set_progress_bar_config(disable=True)
        return self.in_parts(self._generated(painter, {"image": self.images, "mask_image": self.hidden}, jump_n_sample=JUMPS))

    def in_parts(self, images: Tensor) -> list[float]:
        """Squared errors of images (N, 3, H, W) in [0, 1]: where pixels are hidden, and where they are known."""
        errors = (images * 2 - 1 - self.truth).square().mean(1, keepdim=True)
        return [self.mean(errors, self.hidden), self.mean(errors, 1 - self.hidden)]

    def filled(self) -> list[float]:
        """The same of a guess that knows no words: the mean colour of what is known."""
        known = 1 - self.hidden
        color = (self.truth * known).sum((2, 3), keepdim=True) / known.sum((2, 3), keepdim=True)
        error = self.mean((color - self.truth).square().mean(1, keepdim=True), self.hidden)
        return [error, 0.0, *(error for _ in LOG_SNRS)]

    def mean(self, errors: Tensor, where: Tensor) -> float:
        return ((errors * where).sum() / where.sum()).item()

    def _generated(self, pipe: Cascade, given: dict[str, Tensor], **call: Any) -> Tensor:
        """Images (N, 3, H, W) in [0, 1]; image i has seed i, and row i of the tensors that are given."""
        parts = []
        for start in range(0, len(self.images), BATCH):
            rows = slice(start, start + BATCH)
            prompts = [example["prompt"] for example in self.examples[rows]]
            generators = [torch.Generator().manual_seed(start + i) for i in range(len(prompts))]
            tensors = {name: tensor[rows] for name, tensor in given.items()}
            parts.append(pipe(prompts, generator=generators, stop_at=1, output_type="pt", **tensors, **call).images.cpu())
        return torch.cat(parts)


def table(rows: dict[str, list[float]]) -> str:
    """Errors in thousandths; a row may end early."""
    names = ["generated", "known pixels", *(f"log-SNR {level:g}" for level in LOG_SNRS)]
    lines = [f"| hidden pixels, squared error x 1000 | {' | '.join(names)} |", f"|---{'|---:' * len(names)}|"]
    for name, values in rows.items():
        cells = [f"{1000 * value:.1f}" for value in values] + [""] * (len(names) - len(values))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(args: Sequence[str] | None = None) -> None:
    told, model, train, loss = parse(InpaintingSettings, ModelSettings, TrainSettings, LossSettings, args=args, **RECIPE)
    if model.rank is not None:
        raise ValueError(
            "rank trains an adapter, and what this network has to learn is how to read masks, in weights of its own: leave it out"
        )
    pipe = load_cascade(model, seed=train.seed)
    pipe.set_progress_bar_config(disable=True)
    measured, plain = Measured(pipe, told.measured, told.folder), pipe.unet
    rows = {"mean colour of the known pixels": measured.filled(), "the base, by the prompt alone": measured.figures(plain.eval())[0]}
    rows[f"the base, repainting, each step {JUMPS} times"] = measured.repainted()
    pipe.unet = with_cond_channels(plain, CHANNELS)
    data = SceneDataset("base", told.scenes, told.folder, seed=train.seed, compile=told.scenes > 1000)
    fit_stage(pipe, 1, Conditioned(data, masked, seed=train.seed), model, train, loss, StageValidationSettings())
    save_cascade(pipe, model, train.output_dir / "pipeline")
    rows["the inpainting network"], images = measured.figures(pipe.unet)
    print(table(rows))
    shown = {"given": measured.conditions[:8, 1:] / 127.5 - 1, "generated": 2 * images[:8] - 1, "the scene": measured.truth[:8]}
    large = [resize(group, (128, 128)) for group in shown.values()]
    labels = [name for name, group in shown.items() for _ in group]
    labelled_grid(pipe.image_processor.postprocess(torch.cat(large)), labels, len(large[0])).save(train.output_dir / "inpainted.png")


if __name__ == "__main__":
    run_script(main)
