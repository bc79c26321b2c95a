"""`imagen-diffusers assemble`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from imagen_diffusers.hub.classes import FORMER, MODULES, class_named

from . import options as o
from .loading import load, text_components


def assemble(
    model: Annotated[str, typer.Argument(help="What the rest is of: a folder, the name of a bundled pipeline, or a Hub id.")],
    dest: Annotated[Path, typer.Argument(help="Where the cascade's folder is written; a new one.")],
    stage: Annotated[
        list[Path],
        typer.Option(exists=True, file_okay=False, help="Folder of a stage, as train_stage.py writes it. Given again for each stage."),
    ],
    text_encoder: Annotated[str | None, typer.Option(help="Text encoder in place of the model's, folder or Hub id.")] = None,
    variant: o.Variant = None,
    revision: o.Revision = None,
) -> None:
    """Put trained stages, each with its scheduler, into the cascade MODEL: a new folder DEST, in float32. MODEL stays as it is."""
    import torch

    o.check_writable(dest)
    if dest.is_dir() and any(dest.iterdir()):
        raise ValueError(f"{dest} is there and not empty, and nothing is written over; give the name of a new folder")
    stages: dict[str, Path] = {}
    for folder in stage:
        slot = _slot_of(folder)
        if slot in stages:
            raise ValueError(f"{stages[slot]} and {folder} both hold {slot}, and a cascade has one; leave one of them out")
        stages[slot] = folder
    given = {} if text_encoder is None else text_components(text_encoder, dtype=torch.float32, use_safetensors=True)
    for slot, folder in stages.items():
        given |= _parts(folder, slot)
    pipe = load(model, "float32", "cpu", variant, revision, **given)
    _check(pipe, stages)
    pipe.save_pretrained(dest)
    typer.echo("\n".join(f"{slot} of {folder}" for slot, folder in sorted(stages.items())))
    typer.echo(f"written to {dest}")


def _slot_of(folder: Path) -> str:
    """The name of the one network that a folder holds.

    Raises:
        ValueError: for a folder of none, or of several.
    """
    from imagen_diffusers.models.weight_files import ADAPTER
    from imagen_diffusers.pipelines.slots import UNETS

    adapter = next((place for place in (folder, *(folder / slot for slot in UNETS)) if (place / ADAPTER).is_file()), None)
    if adapter is not None:
        raise ValueError(f"{folder} holds an adapter, which is no stage; give it to the commands that make images, as --lora {adapter}")
    _check_ended(folder)
    found = [slot for slot in UNETS if (folder / slot / "config.json").is_file()]
    if len(found) != 1:
        raise ValueError(
            f"{folder} holds {' and '.join(found) or 'no stage'}; give the folder of one, as train_stage.py writes it at its end"
        )
    return found[0]


def _check_ended(folder: Path) -> None:
    """See that a folder is no checkpoint, which tells neither its stage nor its noise curve, and no run that holds checkpoints alone.

    Raises:
        ValueError: saying how a stage is made of it.
    """
    from imagen_diffusers.training.checkpoints import PROGRESS, steps_done

    if (folder / PROGRESS).is_file():
        steps = json.loads((folder / PROGRESS).read_bytes())["step"]
        raise ValueError(
            f"{folder} is a checkpoint, which tells neither its stage nor its noise curve; run the command of its training again with "
            f"--resume_from_checkpoint {folder} --max_train_steps {steps} --output_dir NEW, which writes the stage at once, and give NEW"
        )
    steps = steps_done(folder)
    if steps and not any(folder.glob("unet*")):
        raise ValueError(
            f"{folder} holds checkpoints of a training that has not come to its end; run its command again with "
            f"--resume_from_checkpoint latest, and with --max_train_steps {steps} for the stage as it is"
        )


def _parts(folder: Path, slot: str) -> dict[str, Any]:
    """The network of a stage's folder, and its scheduler where it has one."""
    scheduler = slot.replace("unet", "scheduler")
    files = {slot: folder / slot / "config.json", scheduler: folder / scheduler / "scheduler_config.json"}
    return {name: _class_of(file).from_pretrained(str(folder), subfolder=name) for name, file in files.items() if file.is_file()}


def _class_of(file: Path) -> Any:
    """The class that a saved configuration is of, of this package or of diffusers."""
    import diffusers

    from imagen_diffusers.models.weight_files import check_json

    check_json(file.parent)
    name = str(json.loads(file.read_bytes()).get("_class_name"))
    kind = class_named(name) if name in MODULES or name in FORMER else getattr(diffusers, name, None)
    if kind is None:
        raise ValueError(f"{file} is of a {name}, which neither this package nor diffusers has; put it into a cascade in Python")
    return kind


def _check(pipe: Any, stages: dict[str, Path]) -> None:
    """See that the stages go together.

    Raises:
        ValueError: for one without a scheduler, in the wrong order of sizes, or trained with a text encoder of another width.
    """
    from imagen_diffusers.pipelines.stage_numbers import check_order

    for slot, folder in stages.items():
        scheduler = slot.replace("unet", "scheduler")
        if getattr(pipe, scheduler) is None:
            raise ValueError(f"neither {folder} nor the model has a {scheduler}, which says how noise is added; save one into {folder}")
    check_order(pipe.networks)
    widths = {pipe.slots(n)[0]: network.text_dim for n, network in pipe.networks.items() if network.text_dim is not None}
    told = ", ".join(f"{slot} {width}" for slot, width in widths.items())
    if len(set(widths.values())) > 1:
        raise ValueError(f"stages take text of different widths ({told}); all of a cascade are trained with one text encoder")
    encoded = getattr(getattr(pipe.text_encoder, "config", None), "hidden_size", None)
    if encoded is not None and widths and encoded not in widths.values():
        raise ValueError(
            f"the text encoder's text is {encoded} wide, and the stages take others ({told}); give the one they were trained with"
        )
