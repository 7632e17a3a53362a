"""Receivers of webhooks on loopback: they record what they are sent and answer what they are told to."""

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from ledger.core.loopback import HOST

EMPTY = b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n"


@dataclass(frozen=True)
class Delivery:
    """One request as it came."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def id(self) -> str:
        return str(self.event["id"])


Answer = int | bytes | Callable[[socket.socket], None] | None
"""A status, a whole reply, what is done to the connection, or nothing at all."""


@dataclass
class Receiver:
    """`answer` says what each delivery is answered; by default everything is taken."""

    port: int
    deliveries: list[Delivery] = field(default_factory=list)
    answer: Callable[[Delivery], Answer] = lambda _: 200
    arrived: threading.Condition = field(default_factory=threading.Condition)
    stopped: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/hook"

    @property
    def ids(self) -> list[str]:
        return [delivery.id for delivery in self.deliveries]

    def always(self, answer: Answer) -> None:
        self.answer = lambda _: answer

    def wait(self, good: Callable[[], bool]) -> None:
        """Until it is so; fails after twenty seconds."""
        with self.arrived:
            assert self.arrived.wait_for(good, 20)

    def serve(self, listener: socket.socket) -> None:
        while not self.stopped.is_set():
            with suppress(OSError):
                connection, _ = listener.accept()
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            delivery = _read(connection)
            if delivery is None:
                return
            answer = self.answer(delivery)
            with self.arrived:
                self.deliveries.append(delivery)
                self.arrived.notify_all()
            if callable(answer):
                answer(connection)
            elif answer is None:
                self.stopped.wait(60)
            else:
                connection.sendall(EMPTY % answer if isinstance(answer, int) else answer)


def _read(connection: socket.socket) -> Delivery | None:
    with connection.makefile("rb") as stream:
        line = stream.readline().decode("latin-1").strip()
        if not line:
            return None
        headers = {}
        while text := stream.readline().decode("latin-1").strip():
            name, _, value = text.partition(":")
            headers[name.lower()] = value.strip()
        return Delivery(line, headers, stream.read(int(headers.get("content-length", "0"))))


@contextmanager
def receiving(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    with socket.create_server((HOST, 0)) as plain:
        listener = tls.wrap_socket(plain, server_side=True, do_handshake_on_connect=True) if tls else plain
        made = Receiver(listener.getsockname()[1])
        thread = threading.Thread(target=made.serve, args=(listener,), daemon=True)
        thread.start()
        yield made
        made.stopped.set()
        with suppress(OSError), socket.create_connection((HOST, made.port)):
            pass
        thread.join(timeout=5)
        listener.close()


def slowly(piece: bytes, every: float, begin: bytes = b"") -> Callable[[socket.socket], None]:
    """An answer that never ends: this piece again and again."""

    def send(connection: socket.socket) -> None:
        connection.sendall(begin)
        pause = threading.Event()
        while True:
            connection.sendall(piece)
            pause.wait(every)

    return send
