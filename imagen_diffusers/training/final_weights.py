"""The end of a run: its averaged weights as a Hub-layout folder, whole even where they were trained in shards."""

import shutil
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from diffusers.models.modeling_utils import ModelMixin
from diffusers.training_utils import EMAModel
from torch import Tensor
from torch.nn import Module

from imagen_diffusers.models.learned_guidance import learned_guidance
from imagen_diffusers.models.saved_configs import leave_out_local_paths

from .adapter_files import write_adapter
from .folders import PART, put_in_place


def export_weights(
    model: Module, unet: ModelMixin, ema: EMAModel | None, output_dir: Path, stage: str, accelerator: Accelerator
) -> ModelMixin:
    """Give `unet` its averages and write them to `output_dir`, as a folder named after the stage; see `put_in_place`.

    Without averages DeepSpeed's weights are those that it computes with, rounded to bfloat16 or float16 where that is the run's precision:
    its own float32 copies are in the shards of its optimizer, and so in checkpoints alone. All others are float32.

    Of a network with a LoRA adapter the folder holds the adapter alone, as `load_lora_weights` reads it. `model` is `unet` as
    accelerate prepared it, which knows how to gather its shards; all processes must call this together.

    Returns:
        `unet` as it came, but for its weights. Where it was trained in shards it stays in shards; the main process then gets a whole
        network in its place.
    """
    own = [p for p in unet.parameters() if p.requires_grad]
    if not in_shards(accelerator) and any(p.dtype != torch.float32 for p in own):
        unet.to(torch.float32)  # as it came: DeepSpeed has cast it  # pyright: ignore[reportArgumentType]
    if ema is not None:
        ema.copy_to(own)
    state: Any = accelerator.get_state_dict(model)
    restore_forward(unet)
    trained: ModelMixin = unet
    if accelerator.is_main_process:
        whole: Any = None
        folder = output_dir / stage
        part = folder.with_name(folder.name + PART)
        shutil.rmtree(part, ignore_errors=True)
        if not write_adapter(part, unet, stage, state):
            whole = _whole(unet, state)  # a copy, since files hold plain memory layouts only
            whole.save_pretrained(part)
            leave_out_local_paths([part / "config.json"])
        put_in_place(part, folder)
        if in_shards(accelerator):
            trained = (_whole(unet, state) if whole is None else whole).to(accelerator.device)
    accelerator.wait_for_everyone()
    return trained


def in_shards(accelerator: Accelerator) -> bool:
    """Whether each process holds parts of the weights only."""
    return accelerator.distributed_type == DistributedType.FSDP or zero_stage(accelerator) == 3


def zero_stage(accelerator: Accelerator) -> int:
    """Of DeepSpeed; 0 without."""
    return getattr(getattr(accelerator.state, "deepspeed_plugin", None), "zero_stage", 0)


def restore_forward(unet: Module) -> None:
    """Undo accelerate's autocast, which it puts on the network itself: what was trained computes as what is loaded from its folder does.

    `Accelerator.unwrap_model(keep_fp32_wrapper=False)` goes too far: it takes off the network's own decorators as well.
    """
    original = unet.__dict__.pop("_original_forward", None)
    if original is None:
        return
    unet.__dict__.pop("forward", None)
    if unet.forward != original:  # it had been set on the instance before
        unet.forward = original


def _whole(unet: ModelMixin, state: dict[str, Tensor]) -> ModelMixin:
    """A network of its own on the CPU, with the adapters of `unet`, if any."""
    kind: Any = type(unet)
    copy = kind.from_config(unet.config)
    for name, config in getattr(unet, "peft_config", {}).items():
        copy.add_adapter(config, name)
    learned_guidance(copy).update(learned_guidance(unet))
    copy.load_state_dict(state)
    return copy
