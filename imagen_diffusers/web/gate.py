"""What stands before gradio: the routes of the page and no others, bodies of bounded size, files of the page alone."""

import json
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from .gallery import Gallery
from .limits import Limits

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]

API = "/gradio_api/"
PAGES = ("/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt")
FOLDERS = ("/assets/", "/static/", "/svelte/")
ASKED = ("info", "startup-events", "app_id", "queue/data", "queue/status", "upload_progress", "theme.css")  # by GET, below API
TOLD = ("queue/join", "run/predict", "cancel", "reset")  # by POST; what waits in line is not run directly
BODY_BYTES = 64 * 2**10  # of what is no file


class Gate:
    """ASGI middleware.

    Args:
        app: behind it.
        gallery: the files that may be read.
        limits: of what is sent.
        hosts: names that the server is asked by; None for any. A page of somebody else whose name was made to lead here asks by another
            one, and one that is open in the same browser tells its own address.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], gallery: Gallery, limits: Limits, hosts: Collection[str] | None):
        self.app, self.gallery, self.limits, self.hosts = app, gallery, limits, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        refusal = self._refusal(scope)
        if refusal is None and scope["method"] == "POST" and scope["path"] != f"{API}upload":
            body = await _whole(receive)
            refusal = _refusal_of(body)
            receive = _again(body, receive)
        if refusal is None:
            return await self.app(scope, receive, send)
        status, sentence = refusal
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps({"detail": sentence}).encode()})

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """A status and a sentence for what is refused by its head alone."""
        headers = dict(scope["headers"])
        host, origin = (headers.get(name, b"").decode("latin-1") for name in (b"host", b"origin"))
        if self.hosts is not None and host.rsplit(":", 1)[0] not in self.hosts:
            return 403, f"this page is asked for by the name {' or '.join(self.hosts)} alone"
        if self.hosts is not None and origin and origin.partition("://")[2] != host:
            return 403, "pages of other addresses may not ask for this one"
        path = scope["path"]
        if not path.isprintable():  # a file's name with a null character cannot even be looked for
            return 404, "this page has no such part"
        if scope["method"] == "POST":
            return self._refusal_to_take(path, headers)
        if scope["method"] not in ("GET", "HEAD"):
            return 405, "this page is read by GET and written to by POST"
        if path.startswith(f"{API}file="):
            found = self.gallery.holds(Path("/", path.removeprefix(f"{API}file=")))
            return None if found else (403, "this file is not one of the page, or no longer kept")
        known = path in PAGES or path.startswith((*FOLDERS, f"{API}heartbeat/")) or path in {f"{API}{name}" for name in ASKED}
        return None if known else (404, "this page has no such part")

    def _refusal_to_take(self, path: str, headers: Mapping[bytes, bytes]) -> tuple[int, str] | None:
        upload = path == f"{API}upload"
        if not upload and path not in {f"{API}{name}" for name in TOLD}:
            return 404, "this page has no such part"
        length = headers.get(b"content-length", b"")
        if not length.isdigit() or b"transfer-encoding" in headers:  # beside which a length means nothing
            return 411, "say how long the body is, in Content-Length, and send it in one piece"
        most = self.limits.file_bytes + BODY_BYTES if upload else BODY_BYTES
        if int(length) > most:
            return 413, f"this is {int(length)} bytes long; at most {most} are taken"
        if upload:
            self.gallery.make_room()
        return None


async def _whole(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def _again(body: bytes, receive: Receive) -> Receive:
    """What the app receives in place of what was received already."""
    told = False

    async def again() -> Mapping[str, Any]:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _refusal_of(body: bytes) -> tuple[int, str] | None:
    """A status and a sentence for a body that is no JSON, or names a file by an address, which gradio would fetch."""
    try:
        found = _addresses(json.loads(body))
    except (ValueError, RecursionError):
        return 400, "this is no JSON"
    return (400, "files are sent to the page, not fetched by it; drop the image in") if found else None


def _addresses(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_addresses, value))
    if not isinstance(value, dict):
        return False
    path = value.get("path")
    return (isinstance(path, str) and "://" in path) or any(map(_addresses, value.values()))
