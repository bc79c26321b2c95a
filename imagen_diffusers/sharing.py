"""A trained stage or adapter as a repository on the Hub: its card, and the upload."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

CARD = """---
library_name: imagen_diffusers
pipeline_tag: text-to-image
base_model: {base}
tags: [imagen, text-to-image, diffusers{more_tags}]
---

# {title}

{what} of [{base}](https://huggingface.co/{base}), trained with imagen_diffusers.

```python
{usage}
```
{picture}
## How it was trained

{rows}
"""
USAGE = {
    "stage": """from imagen_diffusers import {network}, ImagenCascadePipeline

{slot} = {network}.from_pretrained("{repo}", subfolder="{slot}")
pipe = ImagenCascadePipeline.from_pretrained("{base}", {slot}={slot})""",
    "adapter": """from imagen_diffusers import ImagenCascadePipeline

pipe = ImagenCascadePipeline.from_pretrained("{base}")
pipe.load_lora_weights("{repo}")""",
    "cascade": """from imagen_diffusers import ImagenCascadePipeline

pipe = ImagenCascadePipeline.from_pretrained("{repo}")""",
}
WHAT = {"stage": "Weights", "adapter": "A LoRA adapter", "cascade": "A cascade, trained further"}
LEFT_HERE = ["checkpoint-*", "checkpoint-*/**", "logs/**", "stage-*/**", "*.part/**", "*.deleted/**", ".lock", "skipped.txt"]


@dataclass(frozen=True)
class HubSettings:
    """Field names are the flags of diffusers' training scripts."""

    push_to_hub: bool = field(default=False, metadata={"help": "Upload the result when it is done."})
    hub_model_id: str | None = field(default=None, metadata={"help": "Repository; the name of output_dir by default."})
    hub_token: str | None = field(default=None, metadata={"help": "The one you are logged in with by default."})


def write_card(
    folder: Path, kind: str, *, base: str, slots: list[str], network: str, settings: list[Any], repo: str, picture: str | None = None
) -> None:
    """Write README.md: what this is, how to load it, a picture, and every setting it was trained with.

    Args:
        folder: of the result.
        kind: what the result is, "stage", "adapter" or "cascade".
        base: the cascade it belongs to.
        slots: the stages that were trained.
        network: class of the first of them.
        settings: dataclasses, written out as a table.
        repo: what the usage example loads.
        picture: a file in `folder` to show.
    """
    told = {name: value for s in settings for name, value in asdict(s).items() if name not in ("hub_token", "output_dir")}
    rows = ["| setting | value |", "|---|---|", *(f"| `{name}` | {_plain(value)} |" for name, value in told.items())]
    text = CARD.format(
        base=base,
        title=folder.resolve().name,
        what=f"{WHAT[kind]} in {', '.join(f'`{s}`' for s in slots)},",
        more_tags=", lora" if kind == "adapter" else "",
        usage=USAGE[kind].format(base=base, repo=repo, slot=slots[0], network=network),
        picture=f"\n![Pictures]({picture})\n" if picture else "",
        rows="\n".join(rows),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def push_folder(folder: Path, settings: HubSettings) -> str:
    """Upload the result, without checkpoints and logs; returns its address."""
    from huggingface_hub import HfApi

    api = HfApi(token=settings.hub_token)
    repo = api.create_repo(settings.hub_model_id or folder.resolve().name, exist_ok=True).repo_id
    told = api.upload_folder(repo_id=repo, folder_path=folder, ignore_patterns=LEFT_HERE, commit_message="Upload trained weights")
    return str(told)


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
