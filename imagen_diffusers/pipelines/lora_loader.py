"""LoRA adapters over all stages of a cascade: loaded, chosen, fused and taken off."""

import logging
import os
from itertools import count
from typing import Any

import torch
from diffusers.loaders.lora_base import LoraBaseMixin
from diffusers.loaders.peft import PeftAdapterMixin
from diffusers.utils.torch_utils import unwrap_module
from torch import Tensor

from imagen_diffusers.models.adapters import FOR_GOOD, check_not_in_weights, holds_adapter, merged_adapters
from imagen_diffusers.models.attention import has_fused_projections
from imagen_diffusers.models.learned_guidance import learned_guidance, learned_of

from .adapter_names import named
from .lora_files import LoraFilesMixin, moved_to_stage
from .lora_scales import forget_scales, give_back_scales, only_fused_ones_scaled
from .slots import UNETS

logger = logging.getLogger(__name__)


def check_no_adapters(pipe: Any) -> None:
    """See that the weights of a cascade have the names they are loaded by, which an adapter's layers change, fused or not.

    Raises:
        ValueError: naming the stages that hold an adapter.
    """
    unets = {stage: getattr(pipe, stage) for stage in UNETS}
    adapted = [stage for stage, unet in unets.items() if unet is not None and holds_adapter(unet)]
    if adapted:
        raise ValueError(
            f"{', '.join(adapted)} of this pipeline hold a LoRA adapter, and a folder saved with its layers would not load again; call "
            "fuse_lora() and unload_lora_weights() to save weights with the adapter in them, or unload_lora_weights() to save them without"
        )


class _Unwrapped(LoraBaseMixin):
    """A cascade's networks out of what `torch.compile` wrapped them in, in the slots where diffusers' LoRA methods look for them."""

    _lora_loadable_modules = list(UNETS)

    def __init__(self, pipe: LoraBaseMixin):
        for stage in UNETS:
            setattr(self, stage, unwrap_module(getattr(pipe, stage)))


def _check_none_fused(names: set[str]) -> None:
    if names:
        raise ValueError(f"{', '.join(sorted(names))} is fused into the weights; call unfuse_lora() first, which takes it out of them")


def _warn_of_idle(unets: dict[str, Any]) -> None:
    """Say which active adapters are not among those that are fused, beside which peft's layers pass them over."""
    from imagen_diffusers.models.lora import chosen_adapters

    for stage, unet in unets.items():
        fused = merged_adapters(unet)
        idle = [name for name in chosen_adapters(unet) if name not in fused]
        if fused and idle:
            logger.warning(
                f"{', '.join(idle)} of {stage} does not act while {', '.join(sorted(fused))} is fused into its weights; fuse both, or call "
                "unfuse_lora()"
            )


class ImagenLoraLoaderMixin(LoraFilesMixin):
    """diffusers' LoRA methods for a cascade, whose networks may be wrapped by `torch.compile`."""

    def load_lora_weights(
        self,
        pretrained_model_name_or_path_or_dict: str | os.PathLike | dict[str, Tensor],
        adapter_name: str | None = None,
        *,
        stage: int | None = None,
        hotswap: bool = False,
        low_cpu_mem_usage: bool = False,
        **kwargs: Any,
    ) -> None:
        """Load an adapter into the stages it was made for; it acts from then on, in place of others in these stages.

        Alpha is read from the metadata, or else from `.alpha` values beside the weights. A file with neither, as older ones of
        DeepFloyd IF, is loaded with the rank as alpha, as diffusers does, and a warning.

        Args:
            pretrained_model_name_or_path_or_dict: a folder, a file, a Hub id; or weights with their `metadata=`.
            adapter_name: to choose it by in `set_adapters`; by default the first free one of "default_0", "default_1", ...
            stage: counted from 1, of weights of one network: they go there, whichever stage they say. diffusers' scripts call the network
                of DeepFloyd IF's second stage "unet", too.
            hotswap: put the weights in the place of the loaded adapter of this name, as in diffusers, without compiling anew; it must be
                of the same stages, layers and shapes, but for the rank.
            low_cpu_mem_usage: do not initialise the adapter's weights before they are loaded.
            kwargs: of `lora_state_dict`.

        Raises:
            ValueError: for no weights, those of no stage, of a stage this pipeline lacks, of another network, or of several where `stage`
                names one; for a `hotswap` with another kind of adapter; for a network with fused projections;
                for the name of an adapter that is in the weights for good.

        Where a stage cannot take its weights, with whatever error, no stage keeps any of the adapter, or changes one that is swapped.
        """
        from imagen_diffusers.models.lora import all_or_none  # and with it peft, which pipelines without adapters do without

        from .lora_swaps import check_swap, said_of_another_network

        read: Any = self.lora_state_dict(pretrained_model_name_or_path_or_dict, return_lora_metadata=True, **kwargs)
        state, metadata = read
        if stage is not None:
            state, metadata = moved_to_stage(state, metadata, stage)
        alphas = {key: state[key].item() for key in state if key.endswith(".alpha")}
        state = {key: value for key, value in state.items() if key not in alphas}
        unets = self._takers({key.split(".")[0] for key in state})
        if not metadata and not alphas:
            logger.warning(
                "these LoRA weights come without metadata, so their alpha is taken to be their rank; give another with metadata="
            )
        told = {"metadata": metadata} if metadata else {"network_alphas": alphas}
        how = {"hotswap": hotswap, "low_cpu_mem_usage": low_cpu_mem_usage}
        loaded = self.get_list_adapters()
        if hotswap:
            check_swap(unets, loaded, adapter_name, state, metadata, alphas)
        taken = {name for names in loaded.values() for name in names} | self._merged_adapters
        adapter_name = adapter_name or next(name for name in map("default_{}".format, count()) if name not in taken)
        for unet in unets.values():
            check_not_in_weights(unet, adapter_name)
        with all_or_none(list(unets.values()), adapter_name):
            for slot, unet in unets.items():
                with said_of_another_network(slot):
                    unet.load_lora_adapter(state, prefix=slot, adapter_name=adapter_name, _pipeline=self, **told, **how)
        for slot, unet in unets.items():
            learned_guidance(unet)[adapter_name] = learned_of(slot, metadata)
            unet.enable_lora()  # `disable_lora` may have switched off the stage, and the new adapter with it

    def set_adapters(self, adapter_names: list[str] | str, adapter_weights: float | dict | list[float] | list[dict] | None = None) -> None:
        """Choose which adapters act, and how much: one weight, or a dictionary by stage, for each.

        Unlike diffusers' own it takes adapters that were not made for all stages; in a stage that none of them was made for, none acts.

        Raises:
            ValueError: for an adapter that was not loaded, or is named twice, a weight of what is no stage, or counts that differ, and
                while one is fused, beside which none acts, and which is taken out by the weight it has.
        """
        there = self.get_list_adapters()
        names = named(adapter_names, there)
        _check_none_fused(self._fused)
        weights = adapter_weights if isinstance(adapter_weights, list) else [adapter_weights] * len(names)
        if len(weights) != len(names):
            raise ValueError(f"{len(names)} adapters and {len(weights)} weights; give one weight each")
        strange = sorted({stage for weight in weights if isinstance(weight, dict) for stage in weight} - set(UNETS))
        if strange:
            raise ValueError(f"adapter_weights names {', '.join(strange)}; the stages of a cascade are {', '.join(UNETS)}")
        for stage, loaded in there.items():
            mine = [(n, w.get(stage) if isinstance(w, dict) else w) for n, w in zip(names, weights, strict=True) if n in loaded]
            unet = unwrap_module(getattr(self, stage))
            unet.enable_lora()
            unet.set_adapters([n for n, _ in mine], [w for _, w in mine])
            forget_scales([unet])

    def get_active_adapters(self) -> list[str]:
        """The adapters that are chosen, of all stages; diffusers' own names those of one."""
        from imagen_diffusers.models.lora import chosen_adapters

        return list(dict.fromkeys(name for stage in self.get_list_adapters() for name in chosen_adapters(getattr(self, stage))))

    def get_list_adapters(self) -> dict[str, list[str]]:
        """The adapters that are loaded, by stage."""
        return _Unwrapped(self).get_list_adapters()

    @property
    def _merged_adapters(self) -> set[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What diffusers' `fused_loras` gives out. The networks know it, which several pipelines may share."""
        unets = [unwrap_module(getattr(self, stage)) for stage in UNETS]
        return self._fused | {name for unet in unets for name in getattr(unet, FOR_GOOD, ())}

    @property
    def _fused(self) -> set[str]:
        """Those of them that can be taken out again."""
        return {name for stage in UNETS for name in merged_adapters(unwrap_module(getattr(self, stage)))}

    def fuse_lora(
        self,
        components: list[str] | None = None,
        lora_scale: float = 1.0,
        safe_fusing: bool = False,
        adapter_names: list[str] | None = None,
    ) -> None:
        """Add adapters into the weights, for speed: the active ones, of all stages that have one, by default.

        Others do not act until `unfuse_lora`, with a warning for those that did.

        Raises:
            ValueError: where no stage has one, and for a name that none of these stages has.
        """
        components = components or self._adapted("fuse_lora adds adapters into the weights")
        if adapter_names is not None:
            adapter_names = named(adapter_names, {s: names for s, names in self.get_list_adapters().items() if s in components})
        unets = {stage: unet for stage in components if (unet := unwrap_module(getattr(self, stage, None))) is not None}
        with only_fused_ones_scaled(unets.values()):
            _Unwrapped(self).fuse_lora(components, lora_scale, safe_fusing, adapter_names)
        _warn_of_idle(unets)

    def unfuse_lora(self, components: list[str] | None = None, **kwargs: Any) -> None:
        """Take fused adapters out of the weights again; of all stages that have one by default.

        Raises:
            ValueError: where no stage has one, nor the layers of one, which alone know how to take it out.
        """
        if self._merged_adapters and not any(self.get_list_adapters().values()):
            raise ValueError(
                f"{', '.join(sorted(self._merged_adapters))} is fused into the weights, and unload_lora_weights() took off its layers, "
                "which alone could take it out: load the pipeline again; call unfuse_lora() before unload_lora_weights() another time"
            )
        components = components or self._adapted("unfuse_lora takes adapters out of the weights")
        _Unwrapped(self).unfuse_lora(components=components, **kwargs)
        give_back_scales(unet for stage in components if (unet := unwrap_module(getattr(self, stage))) is not None)

    def unload_lora_weights(self) -> None:
        """Take the adapters of all stages off; what was fused stays in the weights."""
        for stage, names in self.get_list_adapters().items():
            unet = unwrap_module(getattr(self, stage))
            if names:
                setattr(unet, FOR_GOOD, getattr(unet, FOR_GOOD, set()) | merged_adapters(unet))
        _Unwrapped(self).unload_lora_weights()

    def delete_adapters(self, adapter_names: list[str] | str) -> None:
        """Take these adapters off, of all stages that have them; a stage that has none left is as it was before the first one.

        Raises:
            ValueError: for one that is not there, and one that is fused, whose layers alone know how to take it out of the weights.
        """
        names = named(adapter_names, self.get_list_adapters())
        _check_none_fused(self._fused & {*names})
        _Unwrapped(self).delete_adapters(names)
        for stage in UNETS:
            unet: Any = unwrap_module(getattr(self, stage))
            if unet is not None and not getattr(unet, "peft_config", {}) and holds_adapter(unet):  # diffusers leaves the layers there
                unet.unload_lora()

    def set_lora_device(self, adapter_names: list[str] | str, device: torch.device | str | int) -> None:
        """Move these adapters, of all stages that have them, to a device; to act they must be on their network's.

        Raises:
            ValueError: for a name that no adapter has, or that is given twice.
        """
        super().set_lora_device(named(adapter_names, self.get_list_adapters()), device)

    def enable_lora(self) -> None:
        """Let the chosen adapters act again."""
        _Unwrapped(self).enable_lora()

    def disable_lora(self) -> None:
        """Let no adapter act, until `enable_lora`."""
        _Unwrapped(self).disable_lora()

    def _takers(self, stages: set[str]) -> dict[str, Any]:
        """The networks, unwrapped, that an adapter of these stages goes into.

        Raises:
            ValueError: for a stage that is not there, or cannot take one.
        """
        if not stages:
            raise ValueError("there are no LoRA weights in what was given; give a folder, file or Hub id of an adapter, or its weights")
        if not stages <= set(UNETS):
            raise ValueError(f"these LoRA weights are for {', '.join(sorted(stages))}; a cascade has {', '.join(UNETS)}")
        missing = sorted(s for s in stages if getattr(self, s) is None)
        if missing:
            raise ValueError(
                f"these LoRA weights are for {', '.join(missing)}, which this pipeline does not hold; load it with those stages"
            )
        unets = {slot: unwrap_module(getattr(self, slot)) for slot in sorted(stages)}
        fixed = [slot for slot, unet in unets.items() if not isinstance(unet, PeftAdapterMixin)]
        if fixed:
            raise ValueError(
                f"{', '.join(fixed)} of this pipeline is exported, or of a kind without adapters; fuse the adapter into the network first, "
                "and export that"
            )
        fused = [slot for slot, unet in unets.items() if has_fused_projections(unet)]
        if fused:
            raise ValueError(
                f"an adapter would not act on the fused projections of {', '.join(fused)}; call unfuse_qkv_projections() of it first"
            )
        return unets

    def _adapted(self, what: str) -> list[str]:
        """The stages with an adapter, for what `what` says in the error that there is none."""
        stages = [stage for stage, names in self.get_list_adapters().items() if names]
        if not stages:
            raise ValueError(f"no adapter is loaded, and {what}: load one by load_lora_weights first")
        return stages
