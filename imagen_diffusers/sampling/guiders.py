"""Guidance by one of diffusers' guiders, in place of equation 2.

A guider says which predictions it wants (with the text, without it, with the text and some layers changed) and combines them into one.
As `guide` does, it works on what the network predicts: noise, v or the clean image, whichever the scheduler's configuration says.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from diffusers.hooks.layer_skip import LayerSkipConfig
from diffusers.hooks.smoothed_energy_guidance_utils import SmoothedEnergyGuidanceConfig
from diffusers.models.attention import AttentionModuleMixin
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from imagen_diffusers.models.attention import ImagenAttnProcessor

from .network import StageNetwork

Predict = Callable[[bool], tuple[Tensor, Tensor]]
"""A prediction with the text (True) or without, and the variance that the network learned."""

LayerConfig = LayerSkipConfig | SmoothedEnergyGuidanceConfig


class Guider(Protocol):
    """What is asked of a guider; `diffusers.guiders.BaseGuidance` explains it."""

    def set_state(self, step: int, num_inference_steps: int, timestep: Tensor) -> None: ...
    def prepare_inputs(self, data: dict[str, tuple[Any, Any]]) -> list[Any]: ...
    def prepare_models(self, denoiser: nn.Module) -> None: ...
    def cleanup_models(self, denoiser: nn.Module) -> None: ...
    def __call__(self, data: list[Any]) -> Any: ...


IDENTIFIER = "__guidance_identifier__"  # of a batch: which prediction it is for
ASKED = ("set_state", "prepare_inputs", "prepare_models", "cleanup_models", "__call__")


@dataclass
class GuiderAtWork:
    """A guider in one stage of one call: a copy of the caller's, so that its momentum and its counters reach no other stage or call.

    Args:
        guider: the copy.
        network: of the stage.
        name: of the stage.
        steps: that the stage makes, those it goes back for counted once.
    """

    guider: Guider
    network: StageNetwork
    name: str
    steps: int
    ended: bool = False

    def output(self, predict: Predict, step: int, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """The guided output (B, C, H, W), and the variance as it is with the text, unguided.

        Args:
            predict: evaluates the network.
            step: counted from the first that is made, as diffusers counts; going back counts down.
            timestep: of the step.

        Raises:
            ValueError: for a guider that wants predictions which the network does not make.
        """
        if self.ended:
            return predict(True)
        self.guider.set_state(step=step, num_inference_steps=self.steps, timestep=timestep)
        batches, variances = self._wanted(), []
        for batch in batches:
            try:
                self.guider.prepare_models(self.network.module)
                batch.noise_pred, variance = predict(batch.with_text)
            finally:
                self.guider.cleanup_models(self.network.module)
            variances.append(variance)
        self._check_changed(batches)
        return self._combined(batches), variances[0]

    def follow(self, scale: float) -> None:
        """Go on at this w of equation 2; at 1 or less, without guidance.

        Raises:
            ValueError: for another w of a guider that has none.
        """
        self.ended = scale <= 1
        if self.ended:
            return
        if scale_of(self.guider) == math.inf:
            raise ValueError(f"{_name(self.guider)} has no guidance_scale, which is set to {scale:g}; set 1 or less, which ends guidance")
        self.guider.guidance_scale = scale - _from_the_text(self.guider)  # pyright: ignore[reportAttributeAccessIssue]

    def _wanted(self) -> list[Any]:
        """The predictions that it wants in this step, each to be filled in; the one with the text comes first."""
        try:
            batches = self.guider.prepare_inputs({"with_text": (True, False)})
        except IndexError as error:
            raise ValueError(
                f"{_name(self.guider)} wants more than predictions with the text and without it, which is all that {self.name} makes; "
                "use another guider, or leave out its other terms"
            ) from error
        if any(getattr(batch, IDENTIFIER, "").startswith("pred_cond") and not batch.with_text for batch in batches):
            raise ValueError(
                f"{_name(self.guider)} changes no layers in steps in which its classifier-free guidance is off, a fault of diffusers 0.42; "
                "give it a guidance_scale that guides in all steps in which it changes layers"
            )
        return batches

    def _combined(self, batches: list[Any]) -> Tensor:
        try:
            return self.guider(batches)[0]
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise ValueError(
                f"{_name(self.guider)} cannot combine predictions of the shape {tuple(batches[0].noise_pred.shape)}, which {self.name} "
                f"makes: {error}; use another guider"
            ) from error

    def _check_changed(self, batches: list[Any]) -> None:
        """A prediction with layers changed is not the one without."""
        first, *others = batches
        for other in others:
            if other.with_text == first.with_text and torch.equal(other.noise_pred, first.noise_pred):
                raise ValueError(
                    f"{_name(self.guider)} changes nothing in {self.name}: what it predicts with layers changed is what it predicts "
                    "without; name other layers, or use another guider"
                )


def scale_of(guider: Any) -> float:
    """The w of equation 2 that a guider is set to, for callbacks to read; infinite where it has no one number for it."""
    scale = getattr(guider, "guidance_scale", None)
    return math.inf if scale is None else float(scale) + _from_the_text(guider)


def check_guider(guider: Any, name: str, network: StageNetwork) -> None:
    """Refuse, before anything is computed, a guider that cannot guide this stage.

    Raises:
        ValueError: for what is no guider, and for layers that cannot be changed.
    """
    if isinstance(guider, type) or not all(callable(getattr(guider, method, None)) for method in ASKED):
        raise ValueError(
            f"guider is {guider!r}; give one of diffusers.guiders, such as ClassifierFreeGuidance(guidance_scale=3.0), for all stages, "
            "or one, or None, for each stage that runs"
        )
    configs = list(_layer_configs(guider))
    if not configs:
        return
    if network.compiled or network.runner is not network.module:
        raise ValueError(
            f"{_name(guider)} changes layers while {name} runs, and {name} is compiled or exported; use it with networks that are not"
        )
    _let_attention_be_skipped()
    for config in configs:
        _check_layers(config, _name(guider), name, network.module)


def _check_layers(config: LayerConfig, guider: str, name: str, module: nn.Module) -> None:
    """The layers that a guider names are there, and can be changed as it says."""
    if isinstance(config, LayerSkipConfig):
        if 0 < config.dropout < 1:
            raise ValueError(
                f"{guider} has dropout={config.dropout:g}, whose random numbers would not come from the call's generator; "
                "give 1, which skips the layers"
            )
        if config.skip_ff:
            raise ValueError(
                f"{guider} would skip whole layers, which change the number of channels or pixels in {name}, or feed-forward layers, "
                "which are not there; skip attention, by a LayerSkipConfig with skip_ff=False"
            )
    stacks = {n: stack for n, stack in module.named_modules() if isinstance(stack, nn.ModuleList)}
    places = {n: [i for i, layer in enumerate(stack) if any(_attentions(layer))] for n, stack in stacks.items()}
    if not set(places.get(config.fqn, ())).intersection(_listed(config.indices)):
        there = " or ".join(f'fqn="{n}", indices={found}' for n, found in places.items() if found) or "there is none"
        raise ValueError(
            f'{guider} names fqn="{config.fqn}", indices={config.indices}, where {name} has no attention between pixels that it could '
            f"change; of such layers {there}"
        )
    changed = [m for i in _listed(config.indices) if i < len(stacks[config.fqn]) for m in _attentions(stacks[config.fqn][i])]
    if isinstance(config, LayerSkipConfig) and config.skip_attention_scores and any(getattr(m, "add_k_proj", None) for m in changed):
        raise ValueError(
            f"{guider} lets each pixel attend to itself alone, which the attention of {name} cannot: its keys are pixels and text "
            "together; use SkipLayerGuidance or AutoGuidance, which skip the attention"
        )


def _attentions(layer: nn.Module) -> Iterator[Any]:
    """The attention between pixels in a layer, as diffusers' hooks find it."""
    return (m for m in layer.modules() if isinstance(m, Attention | AttentionModuleMixin) and not getattr(m, "is_cross_attention", True))


def _layer_configs(guider: Any) -> Iterator[LayerConfig]:
    for value in vars(guider).values():
        yield from (one for one in _listed(value) if isinstance(one, LayerConfig))


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _let_attention_be_skipped() -> None:
    """Tell diffusers' hooks that attention of this package, skipped, gives back what it was given."""
    from diffusers.hooks._helpers import AttentionProcessorMetadata, AttentionProcessorRegistry

    skipped = AttentionProcessorMetadata(skip_processor_output_fn=lambda _, x, *rest: x)  # pyright: ignore[reportArgumentType]
    AttentionProcessorRegistry.register(ImagenAttnProcessor, skipped)


def _from_the_text(guider: Any) -> float:
    """What a guider's scale is short of w: 1 where it starts from the prediction with the text (the "original formulation")."""
    return 1.0 if getattr(guider, "use_original_formulation", False) else 0.0


def _name(guider: Any) -> str:
    return type(guider).__name__
