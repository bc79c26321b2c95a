"""What a cascade's folder holds, seen before anything of it is loaded: its components, their variants, and what is missing or damaged."""

import os
from pathlib import Path
from typing import Any

from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from huggingface_hub import HfApi

from imagen_diffusers.hub.classes import EXPORTED
from imagen_diffusers.models.saved_configs import components_of
from imagen_diffusers.models.weight_files import check_json, check_network_folder, plain_beside, sole_variant, weight_files


class FolderContents(DiffusionPipeline):
    """What `from_pretrained` of a cascade looks at first."""

    @classmethod
    def _fetch(cls, place: str, kwargs: dict[str, Any]) -> str:
        """The folder of a Hub id in the cache, with all that will be loaded."""
        variant = kwargs.get("variant")
        if kwargs["use_safetensors"] and variant is None and not kwargs.get("local_files_only"):
            try:
                files = HfApi(token=kwargs.get("token")).list_repo_files(place, revision=kwargs.get("revision"))
            except Exception:  # `download` looks into the cache, or says what is wrong; the classes of network errors differ by release
                files = []
            there = {name: [f.split("/")[1] for f in files if f.startswith(f"{name}/")] for name in cls._to_load(kwargs)}
            variant = sole_variant(there)
            plain = plain_beside(there, variant)
            if plain:
                cls.download(place, **cls._without_variant(plain, kwargs))
        return str(cls.download(place, **{**kwargs, "variant": variant}))

    @classmethod
    def _check_taken(cls, place: str, index: Any) -> None:
        """See that a cascade takes all components of a folder; another pipeline's networks may have a cascade's names."""
        components, settings = cls._get_signature_keys(cls)
        taken = {*cls._optional_components, *components, *settings}
        others = [name for name, kind in index.items() if name not in taken and isinstance(kind, list) and [*map(type, kind)] == [str, str]]
        if others:
            raise ValueError(
                f"{place} is of {index.get('_class_name')}, and {cls.__name__} takes no {', '.join(sorted(others))}; load it with "
                "diffusers' DiffusionPipeline.from_pretrained, or give a cascade"
            )

    @classmethod
    def _to_load(cls, kwargs: dict[str, Any]) -> list[str]:
        """The components that the caller neither gives nor leaves out."""
        return [name for name in cls._optional_components if name not in kwargs]

    @classmethod
    def _without_variant(cls, names: list[str], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The same arguments for these components alone, of plain weights."""
        return {**kwargs, **dict.fromkeys(set(cls._to_load(kwargs)) - set(names)), "variant": None}

    @classmethod
    def _check_folder(cls, folder: Path, index: Any, kwargs: dict[str, Any]) -> tuple[str | None, list[str]]:
        """See that all that will be loaded is there and whole; the variant to load, and the networks to load without it."""
        there = [name for name in cls._to_load(kwargs) if (index.get(name) or (None,))[0] is not None]
        without_weights = ("tokenizer", "feature_extractor", *components_of(index, EXPORTED))
        networks = [name for name in there if "scheduler" not in name and name not in without_weights]
        files = {name: os.listdir(folder / name) if (folder / name).is_dir() else [] for name in networks}
        if networks and not any(map(weight_files, files.values())):
            raise OSError(f"{folder} holds configurations and no weights; they are to be trained first (--from_scratch)")
        asked = kwargs.get("variant")
        variant = asked or sole_variant(files)
        plain = [] if asked else plain_beside(files, variant)
        for name in there:
            if not (folder / name).is_dir():
                raise OSError(f"{folder / name} is missing, which model_index.json names; fetch or save it again, or pass {name}=None")
            if name in networks:
                check_network_folder(folder / name, None if name in plain else variant)
            else:
                check_json(folder / name)
        return variant, plain
