"""A trained LoRA adapter as a file, of a checkpoint or of the end of a run."""

from pathlib import Path

from diffusers.loaders.lora_base import LoraBaseMixin
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

from imagen_diffusers.models.learned_guidance import as_stored
from imagen_diffusers.models.lora import lora_layers, lora_metadata, trained_adapter


def write_adapter(folder: Path, unet: ModelMixin, stage: str, state: dict[str, Tensor]) -> bool:
    """Write the adapter that is trained into `folder`, as `load_lora_weights` reads it; returns whether there is one.

    Args:
        folder: of the file.
        unet: that has the adapter.
        stage: its name in a pipeline.
        state: the adapter's weights, whole, by their names in `unet`; others beside them are left out.
    """
    adapter = trained_adapter(unet)
    if adapter is not None:
        layers, told = lora_layers(unet, adapter, state), lora_metadata(unet, adapter)
        LoraBaseMixin._save_lora_weights(folder, {stage: layers}, as_stored({stage: told}))  # pyright: ignore
    return adapter is not None
