"""Components of the page by what they are to a request: what it is read from, and what its answer changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component


@dataclass(frozen=True)
class Inputs:
    """The components that a request is read from.

    Args:
        values: by the names of `asked.Asked`.
        weights: of adapters, by their names.
    """

    values: Mapping[str, Component]
    weights: Mapping[str, Component]

    def listed(self) -> list[Component]:
        return [*self.values.values(), *self.weights.values()]

    def read(self, listed: Sequence[Any]) -> dict[str, Any]:
        """What a browser sent for the components, in the order of `listed`."""
        sent = dict(zip(self.values, listed, strict=False))
        return {**sent, "weights": dict(zip(self.weights, listed[len(self.values) :], strict=True))}


@dataclass(frozen=True)
class Page:
    """The components that answers change."""

    status: gr.HTML
    stages: gr.Gallery
    images: gr.Gallery
    names: gr.JSON  # of the images, by which the browser finds them again
    settings: gr.JSON
    download: gr.DownloadButton
