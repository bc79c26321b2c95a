"""A cascade from and to folders and the Hub, with the card that goes with a saved one."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import torch
from huggingface_hub import ModelCard, create_repo, file_exists
from huggingface_hub.errors import EntryNotFoundError
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars
from torch import nn
from transformers.utils import logging as transformers_logging

from imagen_diffusers.hub.classes import EXPORTED
from imagen_diffusers.hub.pipeline_card import write_model_card
from imagen_diffusers.hub.places import find_and_fetch
from imagen_diffusers.hub.upload import CUSTOM_PIPELINE, not_reserved
from imagen_diffusers.interop.deepfloyd import components as deepfloyd
from imagen_diffusers.interop.imagen_pytorch import conversion as imagen_pytorch
from imagen_diffusers.models.loading import check_complete
from imagen_diffusers.models.saved_configs import components_of, leave_out_local_paths
from imagen_diffusers.models.weight_files import check_index

from .folder_contents import FolderContents
from .lora_loader import check_no_adapters
from .slots import UNETS

logger = logging.getLogger(__name__)

OF_THE_HUB = ("commit_message", "private", "token", "create_pr")


class FolderPipeline(FolderContents):
    """`from_pretrained`, `save_pretrained` and `push_to_hub` of a cascade."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> Self:
        """As in diffusers: a folder, a Hub id, or the name of a bundled pipeline, with `dtype`, `variant`, `unet_3=None`, ...

        The repository of a stage of DeepFloyd IF loads, too, as a cascade of that stage alone. Weights are safetensors; pickles are opened
        only with `use_safetensors=False`. Networks whose weights are all of one variant ("fp16") are loaded without `variant=`; plain
        weights go before it.

        Raises:
            OSError: for a place that is not there, for files that are missing, damaged or a pickle, naming them, and for weights that lack
                some of a network's.
            ValueError: where a variant must be chosen, for a `dtype` by a name that torch does not have, and for the folder of a pipeline
                with components that this one does not take.
        """
        place = _found(pretrained_model_name_or_path, cls.config_name, ("pipelines",), kwargs)
        if os.path.isdir(place):
            check_index(place, cls.config_name)
            place = os.path.abspath(place)  # for the card of what is saved from it, elsewhere: relative it could be a Hub id
        if kwargs.get("use_safetensors") is None:
            kwargs["use_safetensors"] = True
        kwargs.update({name: _dtype_named(kwargs[name]) for name in ("dtype", "torch_dtype") if isinstance(kwargs.get(name), str)})
        folder = place if os.path.isdir(place) else cls._fetch(place, kwargs)
        index = cls.load_config(folder)
        of_deepfloyd = deepfloyd.is_deepfloyd(index)  # pyright: ignore[reportArgumentType]
        if of_deepfloyd:
            kwargs = {**deepfloyd.SETTINGS, **kwargs}
        else:
            cls._check_taken(place, index)
        plain: list[str] = []
        if kwargs["use_safetensors"]:
            kwargs["variant"], plain = cls._check_folder(Path(folder), index, kwargs)
        to_load = cls._to_load(kwargs)
        with _one_bar():
            if plain:
                alone: Any = super().from_pretrained(folder, **cls._without_variant(plain, kwargs))
                kwargs.update({name: getattr(alone, name) for name in plain})
            pipe: Any = super().from_pretrained(folder, **kwargs)
        exported = components_of(index, EXPORTED)
        for name in ("text_encoder", *UNETS) if kwargs["use_safetensors"] else ():
            if name in to_load and name not in exported and getattr(pipe, name) is not None:
                check_complete(getattr(pipe, name), Path(folder, name), None if name in plain else kwargs["variant"])
        if of_deepfloyd:
            pipe.register_modules(**deepfloyd.in_their_slots(pipe.components))
        pipe.register_to_config(_name_or_path=place)
        return pipe

    @classmethod
    def from_deepfloyd(cls, stage_1: str | Path | None, stage_2: str | Path | None = None, **kwargs: Any) -> Self:
        """A cascade of DeepFloyd IF's published stages; see `interop.deepfloyd.components.load_components` for the arguments.

        A stage may be None: `from_deepfloyd(None, stage_2)` enlarges images. Assign `unet_3` and `scheduler_3` of your own to go on to
        1024px.

        Raises:
            OSError: for a place that is not there, or on the Hub where that cannot be reached, besides what `load_components` refuses.
        """
        stages = [None if stage is None else _found(stage, deepfloyd.FIRST_READ, (), kwargs) for stage in (stage_1, stage_2)]
        return cls(**deepfloyd.load_components(*stages, **kwargs), **deepfloyd.SETTINGS)

    @classmethod
    def from_imagen_pytorch(
        cls,
        path: str | Path,
        *,
        ema: bool = True,
        settings: dict[str, Any] | None = None,
        dtype: torch.dtype | None = None,
        torch_dtype: torch.dtype | None = None,
        **kwargs: Any,
    ) -> Self:
        """A cascade of a checkpoint of imagen-pytorch; what had to be assumed of it is logged as a warning.

        Args:
            path, ema, settings: as in `interop.imagen_pytorch.conversion.load_components`.
            dtype: of the networks, float32 by default; `torch_dtype` is `dtype`.
            kwargs: the pipeline's components and settings by name, `tokenizer`, `text_encoder`, `guidance_scale`, ...; they go before what
                is found, and components are taken as they are.
        """
        parts, found, assumed = imagen_pytorch.load_components(path, ema=ema, settings=settings)
        for line in found:
            logger.info(line)
        for line in assumed:
            logger.warning(line)
        for part in parts.values():
            if isinstance(part, nn.Module):  # whose own `to`, of diffusers, warns of layers kept in float32, and there are none
                nn.Module.to(part, dtype or torch_dtype or torch.float32)
        return cls(**{**parts, **kwargs})

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, push_to_hub: bool = False, **kwargs: Any) -> None:
        """As in diffusers, with a model card (README.md) where there is none yet.

        Args:
            push_to_hub: upload it as well, to `repo_id`, or the folder's name, with `commit_message`, `private`, `token`, `create_pr`; with
                the card that the repository has already, where the folder has none.

        Raises:
            ValueError: while a network holds a LoRA adapter.
        """
        folder = Path(save_directory)
        repo_id = kwargs.pop("repo_id", folder.resolve().name)
        hub = {name: kwargs.pop(name) for name in OF_THE_HUB if name in kwargs}
        self._write(folder, *args, **kwargs)  # without `push_to_hub`, which writes a card of diffusers over ours
        if push_to_hub:
            self._publish(folder, repo_id, **hub)
        else:
            write_model_card(self, folder)

    def push_to_hub(
        self,
        repo_id: str,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        create_pr: bool = False,
        safe_serialization: bool = True,
        variant: str | None = None,
        subfolder: str | None = None,
    ) -> str:
        """As in diffusers, with a model card of its own; a card and a `pipeline.py` that the repository has already stay.

        A `pipeline.py` of one import goes with it, by which programs load the cascade that import diffusers alone, as
        `DiffusionPipeline.from_pretrained(repo_id, custom_pipeline=repo_id, trust_remote_code=True)`. This package must be installed
        there.

        Returns:
            The commit's address.

        Raises:
            ValueError: while a network holds a LoRA adapter, and where the Hub cannot be reached, or lets nothing be written there.
        """
        with TemporaryDirectory() as folder:
            self._write(Path(folder), safe_serialization=safe_serialization, variant=variant)
            return self._publish(Path(folder), repo_id, commit_message, private, token, create_pr, subfolder)

    def _write(self, folder: Path, *args: Any, **kwargs: Any) -> None:
        """diffusers' own saving of what can be loaded again, without the places on this machine that it was loaded from."""
        check_no_adapters(self)
        super().save_pretrained(str(folder), *args, **kwargs)
        leave_out_local_paths([folder / self.config_name, *(folder / name / "config.json" for name in self._optional_components)])

    def _publish(
        self,
        folder: Path,
        repo_id: str,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        create_pr: bool = False,
        subfolder: str | None = None,
    ) -> str:
        try:
            repo_id = create_repo(repo_id, private=private, token=token, exist_ok=True).repo_id
        except Exception as error:  # where there is no network its class is that of httpx, httpx2 or requests, by release
            raise ValueError(f"{not_reserved(repo_id, error)} repo_id, or save_pretrained to a folder") from error
        if subfolder is None:  # at a repository's root
            by_hand = (folder / "pipeline.py").exists() or file_exists(repo_id, "pipeline.py", token=token)
            if not by_hand:
                (folder / "pipeline.py").write_text(CUSTOM_PIPELINE)
            try:
                if not (folder / "README.md").exists():  # which may be written by hand, too
                    ModelCard.load(repo_id, token=token).save(folder / "README.md")
            except EntryNotFoundError:
                write_model_card(self, folder, repo_id, token=token)
        return str(self._upload_folder(folder, repo_id, token, commit_message, create_pr, subfolder))


def _found(place: str | os.PathLike, file: str, kinds: tuple[str, ...], kwargs: dict[str, Any]) -> str:
    """The folder or Hub id that a name stands for, seen to be there: diffusers asks an absent Hub again and again for most of a minute.

    Args:
        place, kinds: as `find_and_fetch` takes them.
        file: of a Hub id, one that is read in any case, and so in the cache of whoever loaded it before.
        kwargs: of the call, which may say where on the Hub, or in its cache.

    Raises:
        OSError: where nothing is there.
    """
    hub = {name: kwargs[name] for name in deepfloyd.HUB & kwargs.keys()}
    try:
        return find_and_fetch(os.fspath(place), [file], kinds, **hub)[0]
    except ValueError as error:
        raise OSError(str(error)) from None


def _dtype_named(name: str) -> torch.dtype:
    """torch's of this name, for which diffusers would load float32.

    Raises:
        ValueError: where it has none.
    """
    found = getattr(torch, name.removeprefix("torch."), None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f'dtype="{name}" is none of torch; give one, such as torch.bfloat16 or "bfloat16"')
    return found


@contextmanager
def _one_bar() -> Iterator[None]:
    """Loading shows diffusers' one line for all components, without transformers' own for each."""
    shown, bars_of_the_hub = transformers_logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
        if not bars_of_the_hub:
            disable_progress_bars()
