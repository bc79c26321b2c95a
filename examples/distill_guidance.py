"""Halve what sampling costs: distill classifier-free guidance into a LoRA adapter (Meng et al. 2023, section 3.1).

accelerate launch examples/distill_guidance.py --train_data_dir my-drawings --output_dir my-guidance --max_train_steps 500

Then: imagen-diffusers generate "a green cone" --lora my-guidance --guidance-scale 1

The cascade itself is the teacher, so that a few hundred images are enough, captioned as its prompts are; images of its own will do. Stages
that the cascade samples without guidance are left out.
"""

from collections.abc import Sequence
from dataclasses import replace

from imagen_diffusers.finetuning.beginning import check_beginning
from imagen_diffusers.finetuning.cascade import FineTuning, fit_and_share, with_stages
from imagen_diffusers.finetuning.distilling import GuidanceSettings, scales_to_distill
from imagen_diffusers.finetuning.flags import ModelSettings, StagesSettings, StagesTrainSettings, ValidationSettings, parse, run_script
from imagen_diffusers.finetuning.image_sets import image_set
from imagen_diffusers.finetuning.one_stage import load_cascade
from imagen_diffusers.finetuning.text_encoding import needs_text_encoder, open_text_cache
from imagen_diffusers.hub.upload import HubSettings
from imagen_diffusers.training.data_settings import DataSettings
from imagen_diffusers.training.loaders import TrainingSet
from imagen_diffusers.training.losses import LossSettings
from imagen_diffusers.training.processes import process_group
from imagen_diffusers.training.pyramid import CropSettings, WindowSettings

DEFAULTS = {"rank": 32, "learning_rate": 1e-3, "lr_scheduler": "cosine", "ema_decay": 0.99, "weighting": "by_prediction"}


def main(args: Sequence[str] | None = None) -> None:
    kinds = (StagesSettings, ModelSettings, GuidanceSettings, DataSettings, CropSettings, StagesTrainSettings)
    kinds += (LossSettings, ValidationSettings, HubSettings)
    settings = parse(*kinds, args=args, **DEFAULTS)
    which, model, guidance, data, crop, train, loss, validation, hub = settings
    job = FineTuning(which, model, crop, train, loss, validation, hub, list(settings))
    with process_group():
        check_beginning(train, hub, job.folders, train_data_dir=data.train_data_dir)
        pipe = load_cascade(model, seed=train.seed, text_encoder=needs_text_encoder(data, validation))
        cache = open_text_cache(pipe, model, data)
        scales = scales_to_distill(pipe, guidance, which.stages)
        told = [replace(guidance, guidance_scale=list(scales.values())) if one is guidance else one for one in job.told]
        job = with_stages(replace(job, distilled=scales, told=told), list(scales))

        def images(stage: int, crop: WindowSettings) -> TrainingSet:
            return image_set(pipe, stage, data, crop, seed=train.seed, cache=cache)

        fit_and_share(pipe, images, job, cache)


if __name__ == "__main__":
    run_script(main)
