"""Whether this machine can be asked at an address. Knows no gradio, which looks for a port for minutes, and names options of its own."""

import errno
import os
import socket

LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")  # what others cannot reach


def check_address(host: str, port: int | None) -> None:
    """See that the page can be served there, before anything is loaded for it.

    Raises:
        OSError: for an address that is none of this machine, and for a port that is taken, or not anyone's to take.
    """
    try:
        found = socket.getaddrinfo(host.strip("[]"), port or 0, type=socket.SOCK_STREAM)
    except OSError:
        raise OSError(f"--host is {host}, which is no address; give one of this machine, or 0.0.0.0 for all of them") from None
    family, kind, protocol, _, place = found[0]
    try:
        with socket.socket(family, kind, protocol) as listener:
            if os.name != "nt":  # there it would let two programs share a port
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise OSError(f"--port {port} is taken by another program; give another one, or leave it out") from None
        if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            raise OSError(f"--host is {host}, which is no address of this machine; give one that is, or 0.0.0.0 for all") from None
        raise OSError(f"--host {host} with --port {port} cannot be listened on: {error.strerror}") from None
