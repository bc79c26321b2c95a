"""Teach a cascade one subject from 3 to 20 images of it (DreamBooth, Ruiz et al., 2023), in every stage.

accelerate launch examples/dreambooth.py --pretrained_model_name_or_path imagen-emoji \
    --instance_data_dir my-vase --instance_prompt "a sks vase" --with_prior_preservation --class_prompt "a vase" --class_data_dir vases \
    --output_dir my-subject --max_train_steps 400

Then: imagen-diffusers generate "a sks vase" --model imagen-emoji --lora my-subject

With prior preservation the cascade's own images of the class are trained on beside the subject's, so that other vases stay as
they were; those that --class_data_dir lacks are generated first.
"""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch.utils.data import Dataset
from tqdm import tqdm

from imagen_diffusers.finetuning.beginning import check_beginning
from imagen_diffusers.finetuning.cascade import FineTuning, fit_and_share, with_stages_held
from imagen_diffusers.finetuning.flags import ModelSettings, StagesSettings, StagesTrainSettings, ValidationSettings, parse, run_script
from imagen_diffusers.finetuning.image_sets import image_set
from imagen_diffusers.finetuning.one_stage import load_cascade
from imagen_diffusers.hub.upload import HubSettings
from imagen_diffusers.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline
from imagen_diffusers.training.data_settings import DataSettings
from imagen_diffusers.training.examples import Mixed
from imagen_diffusers.training.folders import in_one_rename
from imagen_diffusers.training.image_folders import images_in
from imagen_diffusers.training.losses import LossSettings
from imagen_diffusers.training.processes import process_group
from imagen_diffusers.training.pyramid import CropSettings, WindowSettings

DEFAULTS = {"rank": 16, "learning_rate": 1e-3, "lr_scheduler": "cosine", "ema_decay": 0.99, "weighting": "by_prediction"}
OF_CLASS = ("class_prompt", "class_data_dir", "num_class_images", "sample_batch_size", "prior_loss_weight")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DreamBoothSettings:
    """The subject and its class. Field names are the flags of diffusers' script."""

    instance_data_dir: Path = field(metadata={"help": "Images of the subject."})
    instance_prompt: str = field(metadata={"help": "Names the subject, with a word that means little yet."})
    with_prior_preservation: bool = field(default=False, metadata={"help": "Train on the cascade's own images of the class, too."})
    class_prompt: str | None = field(default=None, metadata={"help": "Names the class."})
    class_data_dir: Path | None = field(default=None, metadata={"help": "Images of the class; missing ones are generated into it."})
    num_class_images: int = field(default=100, metadata={"help": "How many images of the class there should be."})
    sample_batch_size: int = field(default=1, metadata={"help": "How many of them are generated at a time: more take more memory."})
    prior_loss_weight: float = field(default=1.0, metadata={"help": "How much their loss counts."})

    def __post_init__(self) -> None:
        for name in ("num_class_images", "sample_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not self.prior_loss_weight >= 0:
            raise ValueError(f"prior_loss_weight is {self.prior_loss_weight}; it must be at least 0")
        if self.with_prior_preservation and (self.class_prompt is None or self.class_data_dir is None):
            raise ValueError("with_prior_preservation needs class_prompt and class_data_dir")
        given = [one.name for one in fields(self) if one.name in OF_CLASS and getattr(self, one.name) != one.default]
        if given and not self.with_prior_preservation:
            raise ValueError(
                f"with_prior_preservation, which {' and '.join(given)} would be for, is not asked for; add it, or leave them out"
            )


def generate_class(pipe: ImagenCascadePipeline, subject: DreamBoothSettings, processes: PartialState, until: float = math.inf) -> bool:
    """Fill `class_data_dir`, whatever images it holds, up to `num_class_images` with the cascade's own images, each process its share.

    Returns:
        Whether `until`, by `time.monotonic`, did not come before all were there.
    """
    folder = subject.class_data_dir
    assert folder is not None
    folder.mkdir(parents=True, exist_ok=True)
    there = images_in(folder)
    names = {i: f"{i:04d}.png" for i in range(subject.num_class_images + len(there))}
    missing = [i for i, name in names.items() if folder / name not in there][: max(subject.num_class_images - len(there), 0)]
    processes.wait_for_everyone()  # all have seen the same folder
    pipe.set_progress_bar_config(disable=True)
    own = missing[processes.process_index :: processes.num_processes]
    parts = [own[i : i + subject.sample_batch_size] for i in range(0, len(own), subject.sample_batch_size)]
    made = 0
    for part in tqdm(parts, desc="generating the class", disable=not processes.is_main_process):
        if time.monotonic() >= until:
            break
        generators = [torch.Generator().manual_seed(i) for i in part]
        for i, image in zip(part, pipe([subject.class_prompt] * len(part), generator=generators).images, strict=True):
            with in_one_rename(folder / names[i]) as unfinished:
                image.save(unfinished, "PNG")
        made += len(part)
    return all(gather_object([made == len(own)]))  # clocks differ by moments, and nodes without a common disk have a share each


def main(args: Sequence[str] | None = None) -> None:
    kinds = (StagesSettings, ModelSettings, DreamBoothSettings, CropSettings, StagesTrainSettings)
    kinds += (LossSettings, ValidationSettings, HubSettings)
    settings = parse(*kinds, args=args, **DEFAULTS)
    which, model, subject, crop, train, loss, validation, hub = settings
    job = FineTuning(which, model, crop, train, loss, validation, hub, list(settings))
    with process_group() as processes:
        of_class = {"class_data_dir": subject.class_data_dir}
        check_beginning(train, hub, job.folders, of_class, instance_data_dir=subject.instance_data_dir)
        job = with_stages_held(job)
        pipe = load_cascade(model, seed=train.seed)
        if subject.with_prior_preservation and not generate_class(pipe, subject, processes, job.begun + train.time_limit):
            if processes.is_main_process:
                logger.warning("the time limit was reached before all images of the class were there; the same command makes the others")
            return

        def images(stage: int, crop: WindowSettings) -> Dataset:
            def of(folder: Path | None, prompt: str | None) -> Dataset:
                return image_set(pipe, stage, DataSettings(train_data_dir=folder), crop, seed=train.seed, prompt=prompt)

            instance = of(subject.instance_data_dir, subject.instance_prompt)
            if not subject.with_prior_preservation:
                return instance
            return Mixed(instance, of(subject.class_data_dir, subject.class_prompt), subject.prior_loss_weight)

        fit_and_share(pipe, images, job)


if __name__ == "__main__":
    run_script(main)
