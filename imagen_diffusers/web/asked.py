"""What one click asks for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

OWN_PRESET = "the checkpoint's own"
PRESETS = (OWN_PRESET, "quality", "balanced", "fast")
TASKS = ("generate", "edit", "enlarge")
MAX_SEED = 2**32 - 1  # of a request's last image; a browser's numbers are exact as far as this, and further
MAX_GUIDANCE = 20.0
MAX_WEIGHT = 2.0  # of an adapter, either way
MAX_SCALE = 8.0


@dataclass(frozen=True)
class Asked:
    """A request that can be worked on.

    Args:
        task: one of `TASKS`.
        model: one of the page's.
        prompt: empty where an image alone is followed.
        preset: a bundled one's name; None for the checkpoint's own settings.
        seed: of the first image; the next ones count up.
        count: how many images.
        guidance: scale of the first stage; None for the checkpoint's own.
        weights: of adapters, by their names on the page.
        image, mask: files that the browser sent.
        strength: how much of `image` is changed, in [0, 1].
        scale: how many times larger `image` becomes.
    """

    task: str
    model: str
    prompt: str
    preset: str | None
    seed: int
    count: int = 1
    guidance: float | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    image: Path | None = None
    mask: Path | None = None
    strength: float = 0.7
    scale: float = 4.0
