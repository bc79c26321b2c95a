"""What the page shows of a cascade."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from imagen_diffusers.pipelines.arguments import one_each
from imagen_diffusers.text.words import known_words


@dataclass(frozen=True)
class Facts:
    """What there is to choose from, and where the choice begins.

    Args:
        sizes: of its stages' images, first to last.
        guidance: the scale that its authors recommend for the first stage.
        words: that its text encoder knows, where they are few.
        adapters: that are for it, each with the weight that the page begins with.
    """

    sizes: list[int]
    guidance: float
    words: list[str]
    adapters: Mapping[str, float]


def facts_of(pipe: Any, adapters: Mapping[str, float]) -> Facts:
    sizes = [network.sample_size for network in pipe.networks.values()]
    words = known_words(pipe.tokenizer) if pipe.tokenizer is not None else []
    return Facts(sizes, float(one_each("guidance_scale", None, pipe.config, pipe.stage_numbers[:1])[0]), words, adapters)
