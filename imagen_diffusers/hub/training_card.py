"""The README.md that is written beside a trained stage, adapter or cascade, with every setting it was trained with."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import diffusers
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from huggingface_hub import ModelCard

from .card_data import base_models, card_data, inherited_license
from .classes import MODULES
from .places import find
from .upload import HubSettings

CARD = """---
{{ card_data }}
---

# {{ title }}

{{ what }} in {% for slot in slots %}`{{ slot }}`{{ ", " if not loop.last }}{% endfor %}, of {{ origin }}, trained with imagen_diffusers.

```python
{{ usage }}
```
{% if image %}
![Images]({{ image }})
{% endif %}
## How it was trained

| setting | value |
|---|---|
{% for name, value in settings.items() %}| `{{ name }}` | {{ value }} |
{% endfor %}"""
USAGE = {
    "stage": """import torch
{imports}ImagenCascadePipeline{bundled}

{slot} = {network}.from_pretrained({repo}, subfolder="{slot}")
pipe = ImagenCascadePipeline.from_pretrained({base}, {slot}={slot}, dtype=torch.float32)
pipe.{scheduler} = pipe.{scheduler}.from_pretrained({repo}, subfolder="{scheduler}")""",
    "adapter": """import torch
from imagen_diffusers import ImagenCascadePipeline{bundled}

pipe = ImagenCascadePipeline.from_pretrained({base}, dtype=torch.float32)
pipe.load_lora_weights({repo}{place})""",
    "word": """import torch
from imagen_diffusers import ImagenCascadePipeline{bundled}

pipe = ImagenCascadePipeline.from_pretrained({base}, dtype=torch.float32)
pipe.load_textual_inversion({repo})""",
    "cascade": """import torch
from imagen_diffusers import ImagenCascadePipeline

pipe = ImagenCascadePipeline.from_pretrained({repo}, dtype=torch.float32)""",
}
LEFT_OUT = ("hub_token", "output_dir")
LENGTHS = ("max_train_steps", "num_train_epochs")  # of which a run is given one
TAGS = {"adapter": ["lora"], "word": ["textual_inversion"]}
WHAT = {"stage": "Weights", "adapter": "A LoRA adapter", "word": "A word", "cascade": "A cascade, trained further"}


def write_card(
    folder: Path,
    kind: str,
    *,
    base: str,
    slots: list[str],
    network: str,
    settings: list[Any],
    repo: str,
    image: str | None = None,
    guidance_scale: list[float] | None = None,
) -> None:
    """Write README.md: what this is, how to load it, an image, and every setting it was trained with.

    Args:
        folder: of the result.
        kind: what the result is, "stage", "adapter", "word" (textual inversion) or "cascade".
        base: the cascade it belongs to.
        slots: the stages that were trained; of a word the text encoder.
        network: class of the first of them, or of the stage that taught a word.
        settings: dataclasses, written out as a table.
        repo: what the usage example loads.
        image: a file in `folder` to show.
        guidance_scale: what the cascade is sampled with by an adapter that learned guidance; None for its own.
    """
    told = {name: value for s in settings for name, value in asdict(s).items() if name not in LEFT_OUT}
    told = {name: value for name, value in told.items() if name not in LENGTHS or value is not None}
    hub = next((s for s in settings if isinstance(s, HubSettings)), HubSettings())
    comes_with_us = not Path(base).exists() and find(base) != base
    bases = base_models([] if comes_with_us else [base])
    alone = kind == "adapter" and (folder / slots[0] / LORA_WEIGHT_NAME_SAFE).exists()
    usage = USAGE[kind].format(
        base=f"bundled({json.dumps(base)})" if comes_with_us else json.dumps(base),
        bundled=", bundled" if comes_with_us else "",
        place=f', subfolder="{slots[0]}", weight_name="{LORA_WEIGHT_NAME_SAFE}"' if alone else "",
        repo=json.dumps(repo),
        slot=slots[0],
        scheduler=slots[0].replace("unet", "scheduler"),
        network=network,
        imports=_imports(network),
    )
    usage += "" if guidance_scale is None else f"\npipe.register_to_config(guidance_scale={guidance_scale})"
    license = (
        {"license": hub.license} if hub.license else inherited_license(find(base), [network], ask=hub.push_to_hub, token=hub.hub_token)
    )
    card = ModelCard.from_template(
        card_data(license, bases, tags=TAGS.get(kind, [])),
        template_str=CARD,
        title=folder.resolve().name,
        what=WHAT[kind],
        slots=slots,
        origin=f"[{base}](https://huggingface.co/{base})" if bases else f"`{base}`",
        usage=usage,
        image=image,
        settings={name: _plain(value) for name, value in told.items()},
    )
    card.save(folder / "README.md")


def _imports(network: str) -> str:
    """The beginning of the lines that import a network's class and, after it, something of this package."""
    if network in MODULES:
        return f"from imagen_diffusers import {network}, "
    theirs = f"from diffusers import {network}" if hasattr(diffusers, network) else f"# Import your own {network} here."
    return f"{theirs}\nfrom imagen_diffusers import "


def _plain(value: Any) -> str:
    """In a cell of a table of Markdown, which takes <my-vase> for HTML, and shows nothing of it."""
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text.replace("<", "&lt;").replace("|", "\\|")
