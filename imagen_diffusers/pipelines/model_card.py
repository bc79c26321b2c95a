"""The README.md that is written beside a saved pipeline."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .pipeline_imagen_cascade import ImagenCascadePipeline

CARD = """---
library_name: imagen_diffusers
pipeline_tag: text-to-image
tags: [imagen, text-to-image, diffusers, cascade]
---

# An Imagen cascade

Text to picture by a cascade of pixel diffusion models (Saharia et al., 2022, arXiv:2205.11487).

```python
from imagen_diffusers import ImagenCascadePipeline

pipe = ImagenCascadePipeline.from_pretrained("THIS_REPOSITORY")
pipe("a prompt").images[0].save("picture.png")
```

| stage | network | parameters | trained at | scheduler | steps | guidance | noise level |
|---|---|---:|---:|---|---:|---:|---:|
{rows}

Each stage also loads alone: `{first}.from_pretrained("THIS_REPOSITORY", subfolder="{slot}")`.
"""


def write_model_card(pipe: "ImagenCascadePipeline", folder: Path) -> None:
    """Write README.md into `folder` unless there is one."""
    path = folder / "README.md"
    stages = pipe.stages(pipe.stage_numbers) if pipe.stage_numbers else []
    if path.exists() or not stages:
        return
    rows = "\n".join(
        f"| `{s.name}` | {type(s.network.module).__name__} | {s.network.module.num_parameters() / 1e6:.1f} M | {s.sample_size}px | "
        f"{type(s.scheduler).__name__} | {s.num_inference_steps} | {s.guidance_scale:g} | {s.noise_level:g} |"
        for s in stages
    )
    path.write_text(CARD.format(rows=rows, first=type(stages[0].network.module).__name__, slot=stages[0].name))
