"""The end of a run: its averaged weights as a Hub-layout folder, whole even where they were trained in shards."""

import os
import shutil
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from diffusers.loaders.lora_base import LoraBaseMixin
from diffusers.training_utils import EMAModel
from torch import Tensor
from torch.nn import Module

from imagen_diffusers.models.lora import has_lora, lora_layers, lora_metadata
from imagen_diffusers.models.unet import ConditionedUNet


def export_weights(
    model: Module, unet: ConditionedUNet, ema: EMAModel | None, output_dir: Path, stage: str, accelerator: Accelerator
) -> None:
    """Give `unet` its averages and write them to `output_dir`, as a folder named after the stage, replaced in one rename.

    Of a network with a LoRA adapter the folder holds the adapter alone, as `load_lora_weights` reads it. `model` is `unet` as
    accelerate prepared it, which knows how to gather its shards; all processes must call this together.
    """
    if ema is not None:
        ema.copy_to([p for p in unet.parameters() if p.requires_grad])
    state: Any = accelerator.get_state_dict(model)
    if accelerator.is_main_process:
        folder = output_dir / stage
        part = folder.with_name(folder.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        if has_lora(unet):
            LoraBaseMixin._save_lora_weights(part, {stage: lora_layers(unet, state=state)}, {stage: lora_metadata(unet)})  # pyright: ignore
        else:
            _unsharded(unet, state).save_pretrained(part)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(part, folder)
    accelerator.wait_for_everyone()


def _unsharded(unet: ConditionedUNet, state: dict[str, Tensor]) -> ConditionedUNet:
    """A network of its own on the CPU: the trained one may be in shards, which `save_pretrained` does not gather."""
    copy: Any = type(unet).from_config(unet.config)
    copy.load_state_dict(state)
    return copy
