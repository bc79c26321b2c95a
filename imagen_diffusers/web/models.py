"""The cascades that the page offers, of which the one that was used last is in memory."""

import gc
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .facts import Facts, facts_of

logger = logging.getLogger(__name__)


class NotLoaded(Exception):  # noqa: N818 (a sentence for everybody; the cause, which may name files of the server, is not)
    """A cascade or an adapter could not be loaded."""


class Models:
    """Cascades by name, loaded when they are asked for; used by one thread.

    Args:
        load: gives the cascade at a place.
        places: a folder or Hub id for each name; the first one is the page's default.
        adapters: likewise of LoRA adapters, each with the weight that the page begins with.
    """

    def __init__(self, load: Callable[[str], Any], places: Mapping[str, str], adapters: Mapping[str, tuple[str, float]]):
        self.names = tuple(places)
        self.adapters = {name: weight for name, (_, weight) in adapters.items()}
        self._load, self._places = load, places
        self._adapter_places = {name: place for name, (place, _) in adapters.items()}
        self._name = ""
        self._pipe: Any = None
        self._slots = {name: f"lora_{i}" for i, name in enumerate(adapters)}  # as peft names them
        self._loaded: set[str] = set()  # adapters

    def get(self, name: str, weights: Mapping[str, float] | None = None) -> Any:
        """The cascade of this name, with adapters of these weights; 0 is none.

        Raises:
            NotLoaded: for one that cannot be loaded, and adapters that are not for it.
        """
        if name != self._name:
            self._name, self._pipe, self._loaded = "", None, set()
            gc.collect()  # before the next one is loaded
            with _failing(f'"{name}" could not be loaded'):
                self._pipe = self._load(self._places[name])
            self._pipe.set_progress_bar_config(disable=True)
            self._name = name
        self._adapt({adapter: weights[adapter] for adapter in self.adapters if weights and weights.get(adapter)})
        return self._pipe

    def facts(self, name: str) -> Facts:
        """Of the cascade of this name, which is loaded for it, and so are its adapters.

        Raises:
            NotLoaded: for one that cannot be loaded.
        """
        pipe = self.get(name)
        fitting = {adapter: weight for adapter, weight in self.adapters.items() if self._fits(adapter)}
        return facts_of(pipe, fitting)

    def _fits(self, adapter: str) -> bool:
        """Whether it is for the cascade that is in memory, by loading it; the log says why it is not."""
        try:
            self._load_adapter(adapter)
        except NotLoaded as failed:
            logger.warning(f'the page does not offer "{adapter}" for "{self._name}": {failed.__cause__}')
            return False
        return True

    def _adapt(self, weights: Mapping[str, float]) -> None:
        """Let these act, in the page's order, whoever asked for which of them before: sums depend on it in their last digits."""
        for adapter in weights:
            self._load_adapter(adapter)
        if self._loaded:
            self._pipe.set_adapters([self._slots[adapter] for adapter in weights], [*weights.values()])

    def _load_adapter(self, adapter: str) -> None:
        if adapter in self._loaded:
            return
        with _failing(f'"{adapter}" could not be loaded, or is not for "{self._name}", where its weight must be 0'):
            self._pipe.load_lora_weights(self._adapter_places[adapter], adapter_name=self._slots[adapter])
        self._loaded.add(adapter)


@contextmanager
def _failing(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise NotLoaded(what) from error
