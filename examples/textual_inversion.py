"""Teach a cascade's text encoder one word, from 3 to 20 images of what it is to say (textual inversion, Gal et al., 2022).

accelerate launch examples/textual_inversion.py --pretrained_model_name_or_path imagen-emoji --train_data_dir my-vase \
    --placeholder_token "<my-vase>" --initializer_token vase --templates "a 3d emoji of a {}" --output_dir my-word

Then: imagen-diffusers generate "a 3d emoji of a <my-vase>" --model imagen-emoji --textual-inversion my-word

No network changes: the result is a vector or a few, some kilobytes, and says only what the cascade can already generate.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from imagen_diffusers.finetuning.beginning import check_beginning
from imagen_diffusers.finetuning.flags import CascadeSettings, ModelSettings, ValidationSettings, parse, run_script
from imagen_diffusers.finetuning.image_sets import image_set
from imagen_diffusers.finetuning.one_stage import load_cascade
from imagen_diffusers.finetuning.sharing import say_written
from imagen_diffusers.finetuning.textual_inversion import WordRun, WordSettings, learn_word
from imagen_diffusers.finetuning.validating import generate_examples
from imagen_diffusers.hub.training_card import write_card
from imagen_diffusers.hub.upload import HubSettings
from imagen_diffusers.images import labelled_grid
from imagen_diffusers.training.checkpoints import GO_ON
from imagen_diffusers.training.data_settings import DataSettings
from imagen_diffusers.training.losses import LossSettings
from imagen_diffusers.training.processes import process_group
from imagen_diffusers.training.pyramid import WindowSettings

DEFAULTS = {"text_dropout": 0.0, "weighting": "by_prediction"}


@dataclass(frozen=True)
class StageSettings:
    """Which stage teaches."""

    stage: int = field(default=1, metadata={"help": "1 is the base, which decides what is shown; the others read the word as well."})


def main(args: Sequence[str] | None = None) -> None:
    kinds = (StageSettings, CascadeSettings, WordSettings, WindowSettings, WordRun, LossSettings, ValidationSettings, HubSettings)
    settings = parse(*kinds, args=args, **DEFAULTS)
    which, cascade, word, crop, run, loss, validation, hub = settings
    prompts, folder = validation.validation_prompts, run.output_dir
    with process_group() as processes:
        check_beginning(run.as_of_a_stage(), hub, [folder], train_data_dir=word.train_data_dir)
        pipe = load_cascade(ModelSettings(**asdict(cascade)), seed=run.seed, stage=None if prompts else which.stage)
        images = image_set(pipe, which.stage, DataSettings(train_data_dir=word.train_data_dir), crop, seed=run.seed, prompt="")
        finished = learn_word(pipe, which.stage, images, word, run, loss)
        if processes.is_main_process and finished:
            image = "after.png" if prompts else None
            if image is not None:
                labelled_grid(generate_examples(pipe, prompts, seed=run.seed), prompts, columns=len(prompts)).save(folder / image)
            write_card(
                folder,
                "word",
                base=cascade.pretrained_model_name_or_path,
                slots=["text_encoder"],
                network=type(pipe.unet_of(which.stage)).__name__,
                settings=list(settings),
                repo=hub.hub_model_id or str(folder),
                image=image,
            )
            say_written(folder, hub)
        elif processes.is_main_process:
            print(f"the time limit was reached before the last step; {folder} holds a checkpoint to go on from: {GO_ON}")
        processes.wait_for_everyone()


if __name__ == "__main__":
    run_script(main)
