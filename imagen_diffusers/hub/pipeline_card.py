"""The README.md that is written beside a saved pipeline."""

from pathlib import Path
from typing import Any

from diffusers.utils.torch_utils import unwrap_module
from huggingface_hub import ModelCard

from .card_data import base_models, card_data, inherited_license

CARD = """---
{{ card_data }}
---

# An Imagen cascade

Text to image by a cascade of pixel diffusion models (Saharia et al., 2022, arXiv:2205.11487).

```python
from imagen_diffusers import ImagenCascadePipeline

pipe = ImagenCascadePipeline.from_pretrained("{{ repo }}")
pipe("a prompt").images[0].save("image.png")
```

| stage | network | parameters | trained at | scheduler | steps | guidance | noise level |
|---|---|---:|---:|---|---:|---:|---:|
{{ rows }}
{{ text }}
Each stage also loads alone: `{{ network }}.from_pretrained("{{ repo }}", subfolder="{{ slot }}")`.
"""


def write_model_card(pipe: Any, folder: Path, repo: str | None = None, *, token: str | None = None) -> None:
    """Write README.md into `folder` unless there is one.

    Args:
        pipe: the cascade that was saved there.
        folder: of the saved pipeline.
        repo: what the usage example loads; the folder by default. Of a repository the licence is looked up on the Hub, if need be.
        token: for that.
    """
    stages = pipe.networks
    if (folder / "README.md").exists() or not stages:
        return
    named = [pipe.config.get("_name_or_path"), *(getattr(network.module, "config", {}).get("_name_or_path") for network in stages.values())]
    place, first = next((name for name in named if name), None), min(stages)
    kinds = [type(network.module).__name__ for network in stages.values()]
    card = ModelCard.from_template(
        card_data(inherited_license(place, kinds, ask=repo is not None, token=token), base_models(named), tags=["cascade"]),
        template_str=CARD,
        rows="\n".join(_row(pipe, n) for n in stages),
        text=_text(pipe),
        repo=repo or str(folder),
        network=type(unwrap_module(getattr(pipe, pipe.slots(first)[0]))).__name__,
        slot=pipe.slots(first)[0],
    )
    card.save(folder / "README.md")


def _text(pipe: Any) -> str:
    widths = [network.text_dim for network in pipe.networks.values() if network.text_dim is not None]
    if pipe.text_encoder is None or not widths:
        return ""
    return f"\nPrompts are read by a frozen `{type(pipe.text_encoder).__name__}`, {widths[0]} wide.\n"


def _row(pipe: Any, number: int) -> str:
    slot, scheduler_slot = pipe.slots(number)
    network, scheduler = pipe.networks[number], getattr(pipe, scheduler_slot)
    steps, guidance, level = (_value(pipe.config[key], number) for key in ("num_inference_steps", "guidance_scale", "noise_level"))
    return (
        f"| `{slot}` | {type(network.module).__name__} | {network.module.num_parameters() / 1e6:.1f} M | {network.sample_size}px | "
        f"{'none' if scheduler is None else type(scheduler).__name__} | {steps} | {guidance} | {level} |"
    )


def _value(values: list[float], number: int) -> str:
    """A stage's value of a setting; a configuration may have values for fewer stages than there are."""
    return f"{values[number - 1]:g}" if number <= len(values) else "–"
