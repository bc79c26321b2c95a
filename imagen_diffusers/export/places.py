"""Where graphs are put: the folders of a cascade's components, in which files of one's own stay as they are."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from imagen_diffusers.models.saved_configs import components_of
from imagen_diffusers.training.folders import discard, to_disk

from .exported import CONFIG, ExportedNetwork, ExportedTextEncoder
from .graphs import graph_files

GRAPHS = (ExportedNetwork.__name__, ExportedTextEncoder.__name__)  # as an index has them
OF_SCHEDULERS = ("scheduler_config.json",)
OF_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja")
OF_TOKENIZERS += ("vocab.json", "vocab.txt", "merges.txt", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model")


def check_places(folder: Path, names: Iterable[str]) -> None:
    """See that the folder of each component is one, or not there yet.

    Raises:
        ValueError: for files, and for links that lead nowhere.
    """
    for place in (folder, *(folder / name for name in names)):
        if (place.exists() or place.is_symlink()) and not place.is_dir():
            raise ValueError(f"{place} is no folder, and one is to be written there; remove it, or give another folder for the graphs")


def former_graphs(index: Path) -> set[str]:
    """The components of a former export that are graphs, as its `model_index.json` says; none where that is not there.

    Raises:
        ValueError: for an index that no pipeline has written.
    """
    if not index.is_file():
        return set()
    try:
        told = json.loads(index.read_text("utf-8"))
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise ValueError(f"{index} is damaged or of something else: it is no index of a pipeline; remove it, or give another folder")
    return set(components_of(told, GRAPHS))


def move_in(part: Path, place: Path) -> None:
    """A finished graph's files, in place of the graph that is there."""
    to_disk(part)
    place.mkdir(exist_ok=True)
    for former in graph_files(place):
        former.unlink()
    for path in part.iterdir():
        os.replace(path, place / path.name)


def discard_written(folder: Path) -> None:
    """Remove the folder of a component of an export or, where there is more in it, what the export has written there."""
    written = {*graph_files(folder), folder / CONFIG}
    if folder.name.startswith("scheduler"):
        written = {folder / name for name in OF_SCHEDULERS}
    elif folder.name == "tokenizer":
        written = {folder / name for name in OF_TOKENIZERS}
    there = set(folder.iterdir())
    if there <= written or folder.is_symlink():
        return discard(folder)
    for path in there & written:
        path.unlink()
