"""What the user of an example script chooses of cascades and stages, and the one parser of all scripts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import HfArgumentParser


@dataclass(frozen=True)
class ModelSettings:
    """Which cascade, and what of a stage is trained."""

    pretrained_model_name_or_path: str = field(
        default="imagen-scenes", metadata={"help": "Folder, Hub id, or the name of a bundled pipeline."}
    )
    revision: str | None = field(default=None, metadata={"help": "Of the Hub repository."})
    variant: str | None = field(default=None, metadata={"help": 'Of the weight files, for example "fp16".'})
    text_encoder: str | None = field(default=None, metadata={"help": "Folder or Hub id of a T5 encoder, in place of the cascade's."})
    from_scratch: bool = field(default=False, metadata={"help": "Take the configuration alone and start from fresh weights."})
    rank: int | None = field(default=None, metadata={"help": "Train a LoRA adapter of this rank, in place of the network."})
    lora_alpha: float | None = field(default=None, metadata={"help": "The adapter counts alpha / rank; the rank by default."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Of the adapter's inputs."})


@dataclass(frozen=True)
class ValidationSettings:
    """Pictures drawn while training, always of the same prompts and seeds."""

    validation_prompts: list[str] = field(default_factory=list, metadata={"help": "What to draw, one picture each."})


@dataclass(frozen=True)
class StageValidationSettings(ValidationSettings):
    """The same for one stage, drawn by that stage alone."""

    validation_data: Path | None = field(
        default=None, metadata={"help": "Folder of images that are not trained on; the error by noise level is measured on them."}
    )
    validation_images: list[Path] = field(
        default_factory=list, metadata={"help": "For a super-resolution stage: small pictures to enlarge, one a prompt."}
    )


@dataclass(frozen=True)
class StagesSettings:
    """Several stages, one after the other."""

    stages: list[int] = field(default_factory=lambda: [1, 2, 3], metadata={"help": "1 is the base, 2 and 3 the super-resolution stages."})
    sr_crop_size: int = field(default=256, metadata={"help": "Super-resolution stages train on windows of at most this side."})


def parse(*settings: Any, args: Sequence[str] | None = None, **defaults: Any) -> tuple[Any, ...]:
    """The command line as instances of these settings classes, whose fields are the flags.

    Args:
        settings: dataclasses.
        args: in place of the command line.
        defaults: of a script, in place of the classes'.

    Bad values end the program with the sentence of the class that refused them.
    """
    parser = HfArgumentParser(settings)
    parser.set_defaults(**defaults)
    try:
        return parser.parse_args_into_dataclasses(args=None if args is None else list(args))
    except ValueError as error:
        parser.error(str(error))
