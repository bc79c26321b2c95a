"""One thread that works on one request after the other, and tells of each while it is at it."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

Tell = Callable[[Any], None]
Work = Callable[[Tell, threading.Event], None]  # given how to tell, and an event that is set when nobody listens any more

_END = object()


class Closed(Exception):  # noqa: N818 (no fault of the program)
    """The worker was closed before the work was done."""


class Worker:
    """The thread that all cascades run on, so that one is at work at a time, and torch has one set of threads."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sampling")
        self._stops: set[threading.Event] = set()  # of what is at work or waits

    def do(self, work: Callable[[], Any]) -> Any:
        """The result of work, waited for."""
        return self._thread.submit(work).result()

    async def stream(self, work: Work) -> AsyncGenerator[Any, None]:
        """What the work tells, as it tells it; closed early, it stops the work.

        Raises:
            Closed: where the worker was closed.
            Exception: whatever the work raises.
        """
        loop = asyncio.get_running_loop()
        told: asyncio.Queue[Any] = asyncio.Queue()
        stopped = threading.Event()

        def tell(event: Any) -> None:
            with suppress(RuntimeError):  # the loop may be no more
                loop.call_soon_threadsafe(told.put_nowait, event)

        self._stops.add(stopped)
        try:
            future = self._thread.submit(work, tell, stopped)
        except RuntimeError:
            self._stops.discard(stopped)
            raise Closed from None
        future.add_done_callback(lambda _: tell(_END))
        try:
            while (event := await told.get()) is not _END:
                yield event
            if stopped.is_set() or future.cancelled():
                raise Closed
            future.result()
        finally:
            stopped.set()
            self._stops.discard(stopped)
            future.cancel()  # where it has not begun

    def close(self) -> None:
        """Begin nothing more, stop what is at work, and wait until it has stopped."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        for stopped in list(self._stops):
            stopped.set()
        self._thread.shutdown()
