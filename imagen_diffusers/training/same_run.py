"""Whether a checkpoint is one of the run that would go on from it: the same network, trained and frozen weights, prediction, adapter,
guidance to distill, optimizer, seed and examples a step.
"""

import inspect
import json
from pathlib import Path
from typing import Any

from diffusers.models.modeling_utils import ModelMixin
from torch.nn import Module

from imagen_diffusers.models.lora import trained_adapter

from .fingerprints import digest_of_weights
from .losses import LossSettings
from .processes import this_process
from .run_settings import TrainSettings

STEP = "train_batch_size x gradient_accumulation_steps x processes"  # examples of a step
FROZEN = "the frozen weights of pretrained_model_name_or_path"
SAID = {FROZEN: f"{FROZEN}, its revision and variant"}  # where a sentence says more than the checkpoint's key


def kind_of_run(unet: ModelMixin, settings: TrainSettings, loss: LossSettings) -> dict[str, Any]:
    """What a run cannot change when it goes on: by the names of the flags. Asked for before the network is sharded.

    Its checkpoints hold state of most of it, by the names of the weights that are trained, these make predictions of one type, an adapter
    learns what images show or one guidance, and which examples came before a step follows from the seed and the examples of a step.
    Learning rates, decays and losses may change, but for the weighting "running", which has a state of its own.
    """
    adapter = trained_adapter(unet)
    config = None if adapter is None else unet.peft_config[adapter]  # pyright: ignore[reportAttributeAccessIssue, reportIndexIssue]
    return {
        STEP: settings.train_batch_size * settings.gradient_accumulation_steps * this_process().num_processes,
        "seed": settings.seed,
        "optimizer": settings.optimizer,
        "use_8bit_adam": settings.use_8bit_adam,
        "prediction_type": loss.prediction_type,
        "weighting": loss.weighting if loss.weighting == "running" else "another than running",
        "guidance_scale": loss.distilled_guidance,
        "trained": _trained(unet),
        FROZEN: frozen_weights(unet),
        "adapter": adapter,
        "rank": None if config is None else config.r,
        "lora_alpha": None if config is None else config.lora_alpha,
    }


def _trained(unet: ModelMixin) -> str:
    """Which weights require a gradient. Where some do not, a checkpoint holds these alone; others would go on as the network came."""
    names = [name for name, weight in unet.named_parameters() if weight.requires_grad]
    return f"{len(names)} weights of {', '.join(dict.fromkeys(name.split('.')[0] for name in names))}"


def frozen_weights(network: Module) -> str | None:
    """Which they are: no checkpoint holds them, and what is learned beside some is nothing beside others. None where all are trained."""
    frozen = [(name, weight) for name, weight in network.named_parameters() if not weight.requires_grad]
    return digest_of_weights(frozen) if frozen else None


def check_same_kind(saved: dict[str, Any], ours: dict[str, Any], path: Path) -> None:
    """Refuse the checkpoint of a run of another kind; of what it does not tell, as earlier ones do not, nothing is known."""
    _refuse_differences(f"{path} is a checkpoint of another run", {SAID.get(k, k): (saved[k], ours[k]) for k in ours.keys() & saved.keys()})


def check_same_architecture(unet: ModelMixin, folder: Path, path: Path) -> None:
    """Refuse the checkpoint of another network; values that its configuration did not know yet are as their defaults say.

    Args:
        unet: the network that is to go on.
        folder: of the checkpoint's configuration.
        path: of the checkpoint.
    """
    defaults = {name: p.default for name, p in inspect.signature(type(unet).__init__).parameters.items() if p.default is not p.empty}
    saved = {**json.loads(json.dumps(defaults)), **json.loads((folder / "config.json").read_text())}
    ours: dict[str, Any] = json.loads(unet.to_json_string())
    names = [k for k in {*saved, *ours} if not k.startswith("_diff") and k != "_name_or_path"]
    _refuse_differences(f"{path} is a checkpoint of another architecture", {k: (saved.get(k), ours.get(k)) for k in names})


def _refuse_differences(what: str, values: dict[str, tuple[Any, Any]]) -> None:
    told = ", ".join(f"{k}={there} there and {here} here" for k, (there, here) in sorted(values.items()) if there != here)
    if told:
        raise ValueError(f"{what}: {told}; go on with what is there, or choose another output_dir")
