"""The weight files of saved networks, seen from outside: which there are, of which variant, and whether they are whole.

Nothing is loaded here, and no pickle is opened.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open

SHARD = r"(?:-\d{5}-of-\d{5})?"
NAME = re.compile(
    rf"(?:diffusion_pytorch_model|pytorch_model|model){SHARD}(?:\.(?P<variant>[\w.-]+?))?{SHARD}\.(?P<format>safetensors|bin)"
)
ADAPTER = "pytorch_lora_weights.safetensors"  # as diffusers names its files
LFS_POINTER = b"version https://git-lfs"


class WeightFile(NamedTuple):
    """A file's name and what it tells: the variant ("fp16"; None for the plain one), and whether it is a pickle."""

    name: str
    variant: str | None
    pickled: bool


def weight_files(names: Iterable[str]) -> list[WeightFile]:
    """Those of a folder's file names that are weights."""
    found = ((name, NAME.fullmatch(name)) for name in sorted(names))
    return [WeightFile(name, match["variant"], match["format"] == "bin") for name, match in found if match]


def sole_variant(networks: Mapping[str, Iterable[str]]) -> str | None:
    """The variant to load where none was asked for: that of networks saved as nothing else; None where plain weights are there.

    Args:
        networks: the file names of each network's folder, by the network's name.

    Raises:
        ValueError: where there are several to choose from.
    """
    offered = [{f.variant for f in weight_files(names) if not f.pickled} for names in networks.values()]
    alone = [variants for variants in offered if variants and None not in variants]
    if not alone:
        return None
    common = sorted(v for v in set.intersection(*alone) if v is not None)
    if len(common) != 1:
        every = sorted({v for variants in alone for v in variants if v is not None})
        raise ValueError(f"there are weights of the variants {', '.join(every)}; choose one with variant=")
    return common[0]


def plain_beside(networks: Mapping[str, Iterable[str]], variant: str | None) -> list[str]:
    """Those networks, by name, that hold plain weights beside a variant's; diffusers would load the variant."""
    offered = {name: {f.variant for f in weight_files(names) if not f.pickled} for name, names in networks.items()}
    return [name for name, variants in offered.items() if variant is not None and {variant, None} <= variants]


def check_network_folder(folder: Path, variant: str | None) -> None:
    """See that a saved network can be loaded: that its weights are there, are safetensors, and are whole.

    Args:
        folder: of the network.
        variant: to load; plain weights where it has none of these.

    Raises:
        OSError: naming the file that is missing, damaged, or a pickle.
    """
    names = [path.name for path in folder.iterdir()]
    check_json(folder)
    if "config.json" not in names:
        raise OSError(f"{folder / 'config.json'} is missing; fetch or save the network again")
    for name in _chosen(folder, names, variant):
        check_whole(folder / name)
    for index in folder.glob("*.safetensors.index*.json"):
        if index.name.endswith(f".index.{variant}.json" if variant else ".index.json"):
            missing = sorted(set(json.loads(index.read_text())["weight_map"].values()) - set(names))
            if missing:
                raise OSError(f"{folder / missing[0]} is missing, which {index.name} names; fetch or save it again")


def stored_names(folder: Path, variant: str | None) -> set[str]:
    """The names of all weights that will be loaded; folder and variant as in `check_network_folder`."""
    found: set[str] = set()
    for name in _chosen(folder, [path.name for path in folder.iterdir()], variant):
        with safe_open(folder / name, framework="pt") as file:
            found.update(file.keys())
    return found


def _chosen(folder: Path, names: list[str], variant: str | None) -> list[str]:
    """The safetensors files that will be loaded; an `OSError` that says what is there instead."""
    files = weight_files(names)
    safe = [f for f in files if not f.pickled]
    chosen = [f.name for f in safe if f.variant == variant] or [f.name for f in safe if f.variant is None]
    if chosen:
        return chosen
    if safe:
        there = ", ".join(sorted({str(f.variant) for f in safe}))
        wanted = "plain weights" if variant is None else f"weights of the variant {variant}"
        raise OSError(f"{folder} holds no {wanted}; it has those of: {there}; give one as variant=")
    if files:
        raise OSError(
            f"{folder} holds its weights as a pickle ({files[0].name}), which can run any code once it is opened; "
            "use safetensors, or pass use_safetensors=False if you trust its authors"
        )
    stem = "diffusion_pytorch_model" if "_diffusers_version" in json.loads((folder / "config.json").read_bytes()) else "model"
    raise OSError(f"{folder} holds no weights: {stem}{f'.{variant}' if variant else ''}.safetensors is missing; fetch or save it again")


def check_whole(path: Path) -> None:
    """See that a safetensors file is as long as its header says.

    Raises:
        OSError: naming it.
    """
    try:
        with safe_open(path, framework="pt"):
            pass
    except SafetensorError as error:
        with path.open("rb") as file:
            pointer = file.read(len(LFS_POINTER)) == LFS_POINTER
        what = "is a pointer of git-lfs in place of the file; run git lfs pull" if pointer else "is damaged or cut short; fetch it again"
        raise OSError(f"{path} {what} ({error})") from None


def check_adapter_folder(folder: Path) -> None:
    """See that a folder holds an adapter's file, of any name; runs write it beside the folders of their stages, and into checkpoints.

    Raises:
        OSError: for one without; it names the folders around it that hold one.
    """
    if any(folder.glob("*.safetensors")):
        return
    around = [folder.absolute().parent, *sorted(path for path in folder.iterdir() if path.is_dir())]
    there = " or ".join(str(place) for place in around if (place / ADAPTER).is_file())
    raise OSError(f"{folder} holds no adapter: there is no .safetensors file in it{f'; give {there}, where one is' if there else ''}")


def check_index(folder: str, name: str) -> None:
    """See that a folder is a pipeline's.

    Raises:
        OSError: for one that has no file of this name, which says what belongs to it.
    """
    if Path(folder, name).is_file():
        return
    slots = {place: _slot_in(place) for place in (Path(folder), *sorted(Path(folder).glob("stage-*")))}
    stages = [place for place, slot in slots.items() if slot is not None]
    if stages:
        alone = slots[Path(folder)] is not None
        held = (
            f"but one stage, {slots[stages[0]]}, as train_stage.py writes it; put it"
            if alone
            else ("but stages of a training that has not come to its end; go on with it by --resume_from_checkpoint latest, or put them")
        )
        named = " ".join(f"--stage {place}" for place in (stages[:1] if alone else stages))
        raise OSError(
            f"{folder} is no pipeline: it holds no {name}, {held} into the cascade that training began from, CASCADE (imagen-scenes, "
            f"imagen-emoji, ...): imagen-diffusers assemble CASCADE my-cascade {named}, and give my-cascade"
        )
    raise OSError(
        f"{folder} is no pipeline: it holds no {name}; give the folder that does, or load an adapter by load_lora_weights (--lora)"
    )


def _slot_in(folder: Path) -> str | None:
    """The first stage whose network a folder holds."""
    return next((slot for slot in ("unet", "unet_2", "unet_3") if (folder / slot / "config.json").is_file()), None)


def check_json(folder: Path) -> None:
    """See that a folder's JSON files can be read.

    Raises:
        OSError: naming the one that cannot.
    """
    for path in sorted(folder.glob("*.json")):
        try:
            json.loads(path.read_bytes())
        except ValueError as error:
            raise OSError(f"{path} is damaged or no JSON ({error}); fetch or save it again") from None
