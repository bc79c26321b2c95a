"""What is to be seen while a request is worked on: a progress bar, the stages' images so far, and what went wrong in a sentence.

It knows the page's values by name, and nothing of gradio.
"""

import logging
import threading
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from .asked import Asked
from .facts import Facts
from .models import NotLoaded
from .reading import read_asked
from .sampling import Sampler, StageImage, Step, UnknownWords
from .worker import Closed, Tell, Worker

logger = logging.getLogger(__name__)


class Refused(Exception):  # noqa: N818 (no fault of the program)
    """A request is not worked on, or not to its end; says why in a sentence for everybody to read."""


@dataclass(frozen=True)
class Shown:
    """What changes on the page.

    Args:
        status: HTML.
        stages: images of the stages that are finished, first to last, and the width of each; None where none is new.
        finished: an image for the gallery.
    """

    status: str
    stages: list[tuple[Path, int]] | None = None
    finished: Path | None = None


class Answers:
    """Requests of the page, answered by a sampler on the worker's thread."""

    def __init__(self, worker: Worker, sampler: Sampler):
        self.sampler = sampler
        self._worker = worker

    async def images(self, task: str, values: Mapping[str, Any]) -> AsyncGenerator[Shown, None]:
        """What is seen of a request, step by step.

        Args:
            task: one of `asked.TASKS`.
            values: by the names of `asked.Asked`, as the browser sent them.

        Raises:
            Refused: for what is not within limits, or fails.
        """
        asked = self._read(task, values)
        notes, stages = f"seed {asked.seed}", []
        yield Shown(notes, stages)
        async with aclosing(self._stream(partial(self.sampler.sample, asked))) as events:
            async for event in events:
                match event:
                    case UnknownWords(words):
                        notes += f"; the text encoder never saw: {escape(', '.join(words))}"
                    case Step(done, total, width):
                        yield Shown(f'<progress value="{done}" max="{total}"></progress> {width}px, step {done} of {total}; {notes}')
                    case StageImage(path, width, first, last):
                        stages = [*([] if first else stages), (path, width)]
                        yield Shown(f"{width}px is finished; {notes}", stages, path if last else None)
        yield Shown(f"done; {notes}")

    async def facts(self, name: Any) -> Facts:
        """Of a model that is chosen, which is loaded for it.

        Raises:
            Refused: for one that is not there, or cannot be loaded.
        """
        if name not in self.sampler.models.names:
            raise Refused("this page has no such model; choose another one")

        def tell_facts(tell: Tell, stopped: threading.Event) -> None:
            tell(self.sampler.models.facts(name))

        return [facts async for facts in self._stream(tell_facts)][0]

    def _read(self, task: str, values: Mapping[str, Any]) -> Asked:
        try:
            return read_asked(task, values, self.sampler.models, self.sampler.gallery, self.sampler.limits)
        except ValueError as error:
            raise Refused(str(error)) from None

    async def _stream(self, work: Any) -> AsyncGenerator[Any, None]:
        """What the work tells; its errors in a sentence, and those that are no answer to what was asked only in the log."""
        try:
            async with aclosing(self._worker.stream(work)) as events:
                async for event in events:
                    yield event
        except ValueError as error:
            raise Refused(" ".join(str(error).split())) from None
        except Closed:
            raise Refused("this page has ended; ask again when it is open") from None
        except NotLoaded as failed:
            logger.exception("a model was not loaded")
            raise Refused(f"{failed}; the server's log says why") from None
        except Exception as error:
            logger.exception("a request failed")
            raise Refused(f"this failed on the server, whose log says why ({type(error).__name__})") from None
