"""The README.md that is written beside a saved pipeline, and what all cards say of where weights come from."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData, try_to_load_from_cache
from huggingface_hub.utils import HFValidationError, validate_repo_id

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

Each stage also loads alone: `{{ network }}.from_pretrained("{{ repo }}", subfolder="{{ slot }}")`.
"""
DEEPFLOYD_NETWORK, DEEPFLOYD_LICENSE = "UNet2DConditionModel", "deepfloyd-if-license"
UNKNOWN = "unknown"  # one of the Hub's own words for licences


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
    kinds = [network_name(network.module) for network in stages.values()]
    card = ModelCard.from_template(
        card_data(inherited_license(place, kinds, ask=repo is not None, token=token), base_models(named), tags=["cascade"]),
        template_str=CARD,
        rows="\n".join(_row(pipe, n) for n in stages),
        repo=repo or str(folder),
        network=network_name(stages[first].module),
        slot=pipe.slots(first)[0],
    )
    card.save(folder / "README.md")


def card_data(license: str, bases: list[str], tags: list[str]) -> ModelCardData:
    """The header of a card: what the Hub sorts and filters by."""
    return ModelCardData(
        license=license,
        base_model=bases[0] if len(bases) == 1 else bases or None,
        library_name="imagen_diffusers",
        pipeline_tag="text-to-image",
        tags=["imagen", "text-to-image", "diffusers", *tags],
    )


def base_models(names: list[str | None]) -> list[str]:
    """Those names that are Hub ids, each once: what a card may call a base model."""
    return list(dict.fromkeys(name for name in names if name and is_hub_id(name) and not Path(name).exists()))


def inherited_license(base: str | None, networks: list[str], *, ask: bool = False, token: str | None = None) -> str:
    """The licence that weights made from others have: DeepFloyd IF's for its networks, else what the base's card says.

    Args:
        base: a folder or a Hub id; None for none.
        networks: class names of the stages' networks.
        ask: whether to read a card on the Hub that is not in the cache.
        token: for that.
    """
    if DEEPFLOYD_NETWORK in networks:
        return DEEPFLOYD_LICENSE
    if base is None:
        return UNKNOWN
    path = Path(base) / "README.md"
    if not path.exists() and is_hub_id(base):
        cached = try_to_load_from_cache(base, "README.md")
        path = Path(cached) if isinstance(cached, str) else path
    try:
        if not path.exists() and not (ask and is_hub_id(base)):
            return UNKNOWN
        read = ModelCard.load(path if path.exists() else base, token=token)
    except (OSError, ValueError):  # no card, none of ours to see, or no valid header
        return UNKNOWN
    return read.data.to_dict().get("license") or UNKNOWN


def is_hub_id(name: str) -> bool:
    """Whether a name has the form "user/name"."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return "/" in name


def network_name(module: Any) -> str:
    """The class of a network, compiled or not."""
    return type(getattr(module, "_orig_mod", module)).__name__


def _row(pipe: Any, number: int) -> str:
    slot, scheduler_slot = pipe.slots(number)
    network, scheduler = pipe.networks[number], getattr(pipe, scheduler_slot)
    steps, guidance, level = (pipe.config[key][number - 1] for key in ("num_inference_steps", "guidance_scale", "noise_level"))
    return (
        f"| `{slot}` | {network_name(network.module)} | {network.module.num_parameters() / 1e6:.1f} M | {network.sample_size}px | "
        f"{'none' if scheduler is None else type(scheduler).__name__} | {steps} | {guidance:g} | {level:g} |"
    )
