"""Servers on loopback only: what is to be public goes behind a reverse proxy, which has TLS and a name."""

import gc
import socket
from collections.abc import Callable
from typing import Any

from ledger.core.errors import Conflict, InputInvalid

HOST = "127.0.0.1"


def listen(port: int) -> socket.socket:
    """A bound loopback socket; port 0 takes a free one. Raises Conflict if the port is taken."""
    # The protocol is named because asyncio sets TCP_NODELAY only where it is: without it every reply of two
    # segments waits 40 ms for a delayed acknowledgement.
    if not 0 <= port <= 65_535:
        raise InputInvalid(f"a port is a number from 0 to 65535, got {port}", field="port")
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as problem:
        listener.close()
        raise Conflict(f"port {port} is taken; give another, or 0 for a free one", port=port) from problem
    return listener


def collect_seldom() -> None:
    """For a server once all is loaded: what is there now stays, and what comes and goes with requests is mostly freed
    without the collector. Looking for the rest every 700 objects takes a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def run(make: Callable[[str], Any], port: int, ready: Callable[[str], None], *, proxy: bool = False) -> None:
    """Runs the ASGI app `make(url)` until it is told to stop; `ready(url)` is called before the first request.

    `proxy`: whoever connects is a reverse proxy, and its X-Forwarded-For names the reader.
    """
    import uvicorn

    listener = listen(port)
    url = f"http://{HOST}:{listener.getsockname()[1]}"
    app = make(url)
    listener.listen(128)
    collect_seldom()
    ready(url)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        proxy_headers=proxy,
        server_header=False,
        timeout_graceful_shutdown=5,  # streams have no end of their own
    )
    uvicorn.Server(config).run(sockets=[listener])
