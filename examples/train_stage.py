"""Train one stage of a cascade on captioned images: from a checkpoint, or from nothing.

accelerate launch examples/train_stage.py --pretrained_model_name_or_path imagen-scenes --stage 1 \
    --train_data_dir my-images --output_dir my-base --max_train_steps 1000 --mixed_precision bf16

With --from_scratch the folder's configuration is enough, so the paper's base is
--pretrained_model_name_or_path imagen-paper --text_encoder google/t5-v1_1-xxl --from_scratch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from imagen_diffusers.finetuning.beginning import check_beginning
from imagen_diffusers.finetuning.flags import ModelSettings, StageValidationSettings, parse, run_script
from imagen_diffusers.finetuning.image_sets import image_set
from imagen_diffusers.finetuning.one_stage import fit_stage, load_cascade
from imagen_diffusers.finetuning.sharing import say_written
from imagen_diffusers.finetuning.text_encoding import needs_text_encoder, open_text_cache
from imagen_diffusers.hub.training_card import write_card
from imagen_diffusers.hub.upload import HubSettings
from imagen_diffusers.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline
from imagen_diffusers.training.checkpoints import GO_ON
from imagen_diffusers.training.data_settings import DataSettings
from imagen_diffusers.training.losses import LossSettings
from imagen_diffusers.training.processes import process_group
from imagen_diffusers.training.pyramid import WindowSettings
from imagen_diffusers.training.run_settings import TrainSettings


@dataclass(frozen=True)
class StageSettings:
    """Which stage."""

    stage: int = field(default=1, metadata={"help": "1 is the base, 2 and 3 the super-resolution stages."})


def main(args: Sequence[str] | None = None) -> None:
    kinds = (StageSettings, ModelSettings, DataSettings, WindowSettings, TrainSettings, LossSettings, StageValidationSettings, HubSettings)
    settings = parse(*kinds, args=args)
    which, model, data, crop, train, loss, validation, hub = settings
    with process_group() as processes:
        held_out = {"validation_data": validation.validation_data}
        check_beginning(train, hub, [train.output_dir], held_out, train_data_dir=data.train_data_dir)
        pipe = load_cascade(model, seed=train.seed, text_encoder=needs_text_encoder(data, validation), stage=which.stage)
        cache = open_text_cache(pipe, model, data)
        dataset = image_set(pipe, which.stage, data, crop, seed=train.seed, cache=cache)
        finished = fit_stage(pipe, which.stage, dataset, model, train, loss, validation, data=data, crop=crop, cache=cache)
        if processes.is_main_process and finished:
            share(pipe, which, model, train, hub, list(settings))
        elif processes.is_main_process:
            print(f"the time limit was reached before the last step; {train.output_dir} holds a checkpoint to go on from: {GO_ON}")
        processes.wait_for_everyone()


def share(
    pipe: ImagenCascadePipeline, which: StageSettings, model: ModelSettings, train: TrainSettings, hub: HubSettings, told: list[Any]
) -> None:
    """Write the card, and upload the result if asked."""
    slot, _ = pipe.slots(which.stage)
    write_card(
        train.output_dir,
        "adapter" if model.rank else "stage",
        base=model.pretrained_model_name_or_path,
        slots=[slot],
        network=type(getattr(pipe, slot)).__name__,
        settings=told,
        repo=hub.hub_model_id or str(train.output_dir),
    )
    say_written(train.output_dir, hub, train.logging_dir)


if __name__ == "__main__":
    run_script(main)
