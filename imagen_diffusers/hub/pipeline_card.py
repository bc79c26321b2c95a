"""The README.md that is written beside a saved pipeline."""

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

from diffusers.utils.torch_utils import unwrap_module
from huggingface_hub import ModelCard, ModelCardData

from imagen_diffusers.extras import install

from .card_data import base_models, card_data, card_of, inherited_license
from .classes import EXPORTED

CARD = """---
{{ card_data }}
---

{{ text }}
"""
CASCADE = """# An Imagen cascade

Text to image by a cascade of pixel diffusion models (Saharia et al., 2022, arXiv:2205.11487).
{usage}
| stage | network | parameters | trained at | scheduler | steps | guidance | noise level |
|---|---|---:|---:|---|---:|---:|---:|
{rows}
{text}"""
USAGE = """
```python
import torch
from imagen_diffusers import ImagenCascadePipeline

pipe = ImagenCascadePipeline.from_pretrained({repo}, dtype=torch.float32)
pipe("a prompt").images[0].save("image.png")
```
"""
ALONE = """
Each stage also loads alone: `{network}.from_pretrained({repo}, subfolder="{slot}")`."""

ANEW = "<!-- Saving a cascade into this folder writes this card anew; take this line out to keep the card. -->"
WRITTEN_BY = "written by `imagen-diffusers export`"
GRAPHS = """

{anew}

## Graphs

This folder has no weights. It has graphs of {kind}, {written_by}, of these parts of what is told of above: {which}.
imagen_diffusers runs them with its extra `{extra}`, where the folder `{name}` lies{fetched}: {installed}.
Code above that loads weights does not load them.
{usage}
In a shell it is `imagen-diffusers generate "a prompt" --model {quoted}`.
{alone}"""
LICENCES = ("LICENSE*", "NOTICE*")  # which copies of weights come with, in whatever form


def write_model_card(pipe: Any, folder: Path, repo: str | None = None, *, token: str | None = None) -> None:
    """Write README.md into `folder` unless there is one; that of graphs, which tells of their kind, is written anew.

    The card of graphs is that of the weights that they were made of, where these have one, with a section on graphs. Licences and notices
    of the weights' folder come with it.

    Args:
        pipe: the cascade that was saved there.
        folder: of the saved pipeline.
        repo: what the usage example loads; the folder by default. Of a repository the licence is looked up on the Hub, if need be. A
            cascade of graphs is loaded by the name of its folder, into which it is fetched from a repository first.
        token: for that.
    """
    stages, path = pipe.networks, folder / "README.md"
    there = path.exists()
    if (there and ANEW not in path.read_text(encoding="utf-8", errors="replace")) or not stages:
        return
    named = [pipe.config.get("_name_or_path"), *(getattr(network.module, "config", {}).get("_name_or_path") for network in stages.values())]
    place, ask = next((name for name in named if name), None), repo is not None
    graphs = {slot: one for slot, one in pipe.components.items() if type(one).__name__ in EXPORTED}
    kind = next((one.written_as for one in graphs.values()), None)
    license = inherited_license(place, [type(network.module).__name__ for network in stages.values()], ask=ask, token=token)
    data = card_data(license, base_models(named), tags=["cascade", *([] if kind is None else [kind.lower()])])
    if kind is None:
        text = _cascade(pipe, USAGE.format(repo=json.dumps(repo or str(folder)))) + _alone(pipe, repo or str(folder))
    else:
        source = card_of(named[0], ask=ask, token=token)
        text = _cascade(pipe, "") if source is None else _without_graphs(source.text, named[0])
        data = data if source is None else _inherited(source.data, data)
        if WRITTEN_BY not in text:  # of a card that tells of graphs in words that are to be kept
            text += _graphs(pipe, kind, sorted(graphs), Path(repo or folder.resolve()).name, repo)
        _copy_licences(named[0], folder, anew=there)
    ModelCard.from_template(data, template_str=CARD, text=text).save(path)


def _cascade(pipe: Any, usage: str) -> str:
    """What is said of any cascade."""
    return CASCADE.format(usage=usage, rows="\n".join(_row(pipe, n) for n in pipe.networks), text=_text(pipe))


def _alone(pipe: Any, repo: str) -> str:
    slot = pipe.slots(min(pipe.networks))[0]
    return ALONE.format(network=type(unwrap_module(getattr(pipe, slot))).__name__, repo=json.dumps(repo), slot=slot)


def _inherited(theirs: Any, ours: ModelCardData) -> ModelCardData:
    """The header of the weights' card, of what runs graphs: no other library than this does."""
    theirs.library_name, theirs.license = ours.library_name, ours.license
    theirs.base_model = ours.base_model or theirs.base_model
    theirs.pipeline_tag = theirs.pipeline_tag or ours.pipeline_tag
    theirs.tags = list(dict.fromkeys(tag for tags in (theirs.tags, ours.tags) for tag in tags or []))
    return theirs


def _without_graphs(text: str, place: str | Path) -> str:
    """A card's text without a section on graphs, which are others now, and without the place of its folder on this machine."""
    own = text.split(ANEW)[0].strip()
    if not Path(place).is_absolute():
        return own
    return re.sub(rf"(?<![\w./-]){re.escape(str(place))}(?![\w.-])", lambda _: Path(place).name, own)


def _copy_licences(place: str | Path | None, folder: Path, *, anew: bool) -> None:
    """Those of the folder that a cascade was loaded from; of others of these names, `anew` writes over them."""
    origin = None if place is None else Path(place)
    if origin is None or not origin.is_dir() or origin.resolve() == folder.resolve():
        return
    for path in (path for kind in LICENCES for path in sorted(origin.glob(kind)) if path.is_file()):
        if anew or not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)


def _text(pipe: Any) -> str:
    widths = [network.text_dim for network in pipe.networks.values() if network.text_dim is not None]
    if pipe.text_encoder is None or not widths:
        return ""
    return f"\nPrompts are read by a frozen `{type(pipe.text_encoder).__name__}`, {widths[0]} wide.\n"


def _graphs(pipe: Any, kind: str, slots: list[str], name: str, repo: str | None) -> str:
    fetched = "" if repo is None else f", which `hf download {repo} --local-dir {name}` fetches"
    which = ", ".join(f"`{slot}`" for slot in slots)
    return GRAPHS.format(
        anew=ANEW,
        kind=kind,
        written_by=WRITTEN_BY,
        which=which,
        extra=kind.lower(),
        installed=install(kind.lower()),
        name=name,
        fetched=fetched,
        usage=USAGE.format(repo=json.dumps(name)),
        quoted=shlex.quote(name),
        alone=_alone(pipe, name),
    )


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
