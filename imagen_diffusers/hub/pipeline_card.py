"""The README.md that is written beside a saved pipeline."""

from pathlib import Path
from typing import Any

from diffusers.utils.torch_utils import unwrap_module
from huggingface_hub import ModelCard

from .card_data import base_models, card_data, inherited_license
from .classes import EXPORTED

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
{{ text }}{{ graphs }}
Each stage also loads alone: `{{ network }}.from_pretrained("{{ repo }}", subfolder="{{ slot }}")`.
"""

ANEW = "<!-- Saving a cascade into this folder writes this card anew; take this line out to keep the card. -->"
GRAPHS = """
{anew}

In place of weights there are graphs of {kind}, written by `imagen-diffusers export`: {which}. imagen_diffusers runs them with its extra
`{extra}` (`pip install -c constraints.txt -e ".[{extra}]"` in its repository), from a folder of one's own machine: the code above is for
the folder that holds `{name}`{fetched}. In a shell it is `imagen-diffusers generate "a prompt" --model {name}`.
"""


def write_model_card(pipe: Any, folder: Path, repo: str | None = None, *, token: str | None = None) -> None:
    """Write README.md into `folder` unless there is one; that of graphs, which tells of their kind, is written anew.

    Args:
        pipe: the cascade that was saved there.
        folder: of the saved pipeline.
        repo: what the usage example loads; the folder by default. Of a repository the licence is looked up on the Hub, if need be. A
            cascade of graphs is loaded by the name of its folder, into which it is fetched from a repository first.
        token: for that.
    """
    stages, path = pipe.networks, folder / "README.md"
    if (path.exists() and ANEW not in path.read_text(encoding="utf-8", errors="replace")) or not stages:
        return
    named = [pipe.config.get("_name_or_path"), *(getattr(network.module, "config", {}).get("_name_or_path") for network in stages.values())]
    place, first = next((name for name in named if name), None), min(stages)
    graphs = {slot: one for slot, one in pipe.components.items() if type(one).__name__ in EXPORTED}
    graph = next(iter(graphs.values()), None)
    name = Path(repo or folder.resolve()).name
    kinds = [type(network.module).__name__ for network in stages.values()]
    card = ModelCard.from_template(
        card_data(
            inherited_license(place, kinds, ask=repo is not None, token=token),
            base_models(named),
            tags=["cascade", *([] if graph is None else [graph.written_as.lower()])],
        ),
        template_str=CARD,
        rows="\n".join(_row(pipe, n) for n in stages),
        text=_text(pipe),
        graphs="" if graph is None else _graphs(graph.written_as, sorted(graphs), name, repo),
        repo=(repo or str(folder)) if graph is None else name,
        network=type(unwrap_module(getattr(pipe, pipe.slots(first)[0]))).__name__,
        slot=pipe.slots(first)[0],
    )
    card.save(path)


def _text(pipe: Any) -> str:
    widths = [network.text_dim for network in pipe.networks.values() if network.text_dim is not None]
    if pipe.text_encoder is None or not widths:
        return ""
    return f"\nPrompts are read by a frozen `{type(pipe.text_encoder).__name__}`, {widths[0]} wide.\n"


def _graphs(kind: str, slots: list[str], name: str, repo: str | None) -> str:
    fetched = "" if repo is None else f", which `hf download {repo} --local-dir {name}` fetches"
    which = ", ".join(f"`{slot}`" for slot in slots)
    return GRAPHS.format(anew=ANEW, kind=kind, which=which, extra=kind.lower(), name=name, fetched=fetched)


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
