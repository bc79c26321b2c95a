"""The page on a port: gradio's server, with what it does unasked turned off."""

import os
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from gradio.themes import Default
from starlette.middleware import Middleware

from .addresses import LOOPBACK
from .answers import Answers
from .asked import OWN_PRESET
from .gallery import Gallery
from .gate import Gate
from .limits import Limits
from .models import Models
from .page import CSS, build
from .sampling import Sampler
from .worker import Worker


@contextmanager
def own_folder() -> Iterator[Path]:
    """A new folder for the page's files, which nobody else can read, and which is gone afterwards.

    gradio reads where its files are, and what it tells of its use, from the environment.
    """
    with tempfile.TemporaryDirectory(prefix="imagen-diffusers-") as folder:
        given = {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_ANALYTICS_MAX_EVENTS": "100"}
        before = {name: os.environ.get(name) for name in given}
        os.environ.update(given)
        try:
            yield Path(folder)
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


class Server:
    """The page, and all that is behind it.

    Args:
        models: that it offers; the first one is loaded.
        folder: `own_folder`.
        limits: of what is asked for.
        told: settings of the server that go into every image's metadata.
        preset: that the page begins with.

    Raises:
        NotLoaded: for a first model that cannot be loaded.
    """

    def __init__(self, models: Models, folder: Path, limits: Limits, told: Mapping[str, Any], preset: str = OWN_PRESET):
        self._limits = limits
        self._gallery = Gallery(folder, limits)
        self._worker = Worker()
        answers = Answers(self._worker, Sampler(models, self._gallery, limits, told))
        self._page = build(answers, self._worker.do(partial(models.facts, models.names[0])), preset)

    def start(self, host: str, port: int | None = None, share: bool = False) -> tuple[str, str | None]:
        """Answer requests, in threads of their own.

        Args:
            host: the address to listen on.
            port: None for the first one that is free, from 7860.
            share: whether there is a public address, too, by a tunnel of gradio's.

        Returns:
            the page's address, and the public one, if any.

        Raises:
            OSError: for a port that is taken.
        """
        hosts = LOOPBACK if host in LOOPBACK and not share else None
        gate = Middleware(Gate, gallery=self._gallery, limits=self._limits, hosts=hosts)  # pyright: ignore[reportArgumentType]
        self._page.queue(max_size=self._limits.waiting, api_open=False)
        _, address, public = self._page.launch(
            server_name=host,
            server_port=port,
            share=share,
            prevent_thread_lock=True,
            quiet=True,
            show_error=False,
            max_file_size=self._limits.file_bytes,
            app_kwargs={"middleware": [gate]},
            state_session_capacity=200,
            css=CSS,
            theme=Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
        )
        return address, public

    def close(self) -> None:
        """Answer nothing more, and stop what is at work."""
        self._worker.close()
        self._page.close(verbose=False)


def wait() -> None:
    """Until the process is asked to end."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # and what is left behind is removed
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
