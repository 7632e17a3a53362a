"""A node that misbehaves on a schedule: an HTTP proxy on loopback before a real one. Nothing in it is random."""

import json
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SHUT_RDWR, socket
from types import TracebackType
from typing import Any, Self

import urllib3

from ledger.core.ids import checksum

WORDINGS = (  # of nodes and services that answer for so many blocks only
    {"code": -32005, "message": "query returned more than 10000 results. Try with this block range [0x1, 0x5]."},
    {"code": -32602, "message": "Log response size exceeded. You can make eth_getLogs requests with up to a 2K range."},
    {"code": -32000, "message": "exceed maximum block range: 50000"},
    {"code": -32614, "message": "eth_getLogs is limited to a 10,000 range"},
    {"code": -32603, "message": "Internal error"},
    {"code": -32701, "message": "请求的区块范围过大"},
    "block range is too wide",
)

KINDS = (
    "short_range",  # eth_getLogs of a range loses its last `extent` logs, or all for 0
    "short_hash",  # the same of one block's, asked for by its hash
    "silent",  # the connection ends without an answer
    "stale",  # the answer before, to the same method
    "busy",  # HTTP 429
    "broken",  # HTTP 500
    "narrow",  # no range of more than `extent` blocks
    "mixed_case",  # addresses with capitals
    "no_newest",  # the head is named, and its header is not there
    "no_tags",  # `safe` and `finalized` are unknown
    "no_receipts",  # eth_getBlockReceipts is unknown
)
WHOLE = {"silent", "busy", "broken"}  # what happens to a request as a whole
LIES = {"short_range", "short_hash", "stale"}  # what looks like an answer and is none


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong, with every `period`-th thing asked that it can go wrong with, the one at `phase` of them."""

    kind: str
    period: int = 1
    phase: int = 0
    extent: int = 0


class ChaosNode:
    """A proxy before the node at `upstream`, which may be replaced while it runs. `counts`: what it did."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.counts: Counter[str] = Counter()
        self._faults: dict[str, Fault] = {}
        self._asked: Counter[str] = Counter()
        self._before: dict[str, Any] = {}
        self._lock = threading.RLock()
        self._pool = urllib3.PoolManager(maxsize=8, retries=False)
        self._connections: set[socket] = set()
        node = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # head and body leave together

            def setup(self) -> None:
                super().setup()
                with node._lock:
                    node._connections.add(self.connection)

            def finish(self) -> None:
                with node._lock:
                    node._connections.discard(self.connection)
                with suppress(OSError):
                    super().finish()

            def handle(self) -> None:
                with suppress(ConnectionError):
                    super().handle()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, answer = node.answer(body)
                if status == 0:
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)
                self.wfile.flush()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False  # closing waits for them
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="chaos")
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(SHUT_RDWR)
        self._server.server_close()
        self._pool.clear()

    # ---------------------------------------------------------------------------------------- schedule

    def start(self, fault: Fault) -> None:
        """From now on; one of each kind at a time."""
        assert fault.kind in KINDS
        with self._lock:
            self._faults[fault.kind] = fault
            self._asked[fault.kind] = 0

    def stop(self, *kinds: str) -> None:
        """Ends these faults, or all."""
        with self._lock:
            for kind in kinds or KINDS:
                self._faults.pop(kind, None)

    def forget(self) -> None:
        """Ends everything, and what was answered before is not known any more."""
        with self._lock:
            self.stop()
            self._before.clear()

    def active(self, *kinds: str) -> bool:
        return bool(self._faults.keys() & set(kinds))

    def _hit(self, kind: str) -> Fault | None:
        """The fault, if it is this one's turn."""
        with self._lock:
            fault = self._faults.get(kind)
            if fault is None:
                return None
            place = self._asked[kind]
            self._asked[kind] += 1
            return fault if place % fault.period == fault.phase % fault.period else None

    # ----------------------------------------------------------------------------------------- answers

    def answer(self, body: bytes) -> tuple[int, bytes]:
        """Status and body; status 0: none."""
        for kind, status in (("silent", 0), ("busy", 429), ("broken", 500)):
            if self._hit(kind):
                self.counts[kind] += 1
                return status, b'{"error": "try later"}'
        asked = json.loads(body)
        self.counts["requests"] += 1
        if not isinstance(asked, list):
            return 200, json.dumps(self._one(asked, None)).encode()
        self.counts["batches"] += 1
        # One request to the node too; it may answer in any order.
        found = {answer["id"]: answer for answer in self._ask(asked)}
        return 200, json.dumps([self._one(call, found[call["id"]]) for call in asked]).encode()

    def _ask(self, asked: Any) -> Any:
        headers = {"Content-Type": "application/json"}
        return self._pool.request("POST", self.upstream, body=json.dumps(asked).encode(), headers=headers).json()

    def _one(self, call: dict[str, Any], known: dict[str, Any] | None) -> dict[str, Any]:
        """The answer to one call; `known`: what the node answers."""
        refused = self._refused(call)
        if refused is not None:
            return {"jsonrpc": "2.0", "id": call["id"], "error": refused}
        found: dict[str, Any] = known if known is not None else self._ask(call)
        if "result" not in found:
            return found
        return found | {"result": self._changed(call, found["result"])}

    def _refused(self, call: dict[str, Any]) -> Any:
        method, params = call["method"], call.get("params", [])
        if method == "eth_getBlockByNumber" and params[0] in ("safe", "finalized") and self._hit("no_tags"):
            self.counts["no_tags"] += 1
            return {"code": -32602, "message": "Invalid params: unknown block tag"}
        if method == "eth_getBlockReceipts" and self._hit("no_receipts"):
            self.counts["no_receipts"] += 1
            return {"code": -32601, "message": "the method eth_getBlockReceipts does not exist/is not available"}
        if method == "eth_getLogs" and "fromBlock" in params[0]:
            width = int(params[0]["toBlock"], 16) - int(params[0]["fromBlock"], 16) + 1
            fault = self._hit("narrow")
            if fault and width > fault.extent:
                self.counts["narrow"] += 1
                return WORDINGS[self.counts["narrow"] % len(WORDINGS)]
        return None

    def _changed(self, call: dict[str, Any], result: Any) -> Any:
        method, params = call["method"], call.get("params", [])
        if method == "eth_getBlockByNumber":
            return self._header(params[0], result)
        if method == "eth_getLogs":
            result = self._stale(method, result)
            kind = "short_range" if "fromBlock" in params[0] else "short_hash"
            fault = self._hit(kind) if result else None
            if fault:
                self.counts[kind] += 1
                result = result[: -fault.extent] if fault.extent else []
            return self._cased(result)
        if method == "eth_getBlockReceipts" and result is not None:
            return [receipt | {"logs": self._cased(receipt["logs"])} for receipt in result]
        return result

    def _header(self, at: str, result: Any) -> Any:
        # Of the tags, each has its own answer before: a node that takes one for another is no node at all.
        tagged = not at.startswith("0x")
        result = self._stale(f"eth_getBlockByNumber {at if tagged else ''}", result)
        if not tagged and result is not None and self._hit("no_newest"):
            newest = self._ask({"jsonrpc": "2.0", "id": 0, "method": "eth_blockNumber", "params": []})["result"]
            if int(result["number"], 16) == int(newest, 16):
                self.counts["no_newest"] += 1
                return None
        return result

    def _stale(self, key: str, result: Any) -> Any:
        """What was answered before, if it is that fault's turn, and what is answered next time."""
        with self._lock:
            before = self._before.get(key, result)
            self._before[key] = result
        if before != result and self._hit("stale"):
            self.counts["stale"] += 1
            return before
        return result

    def _cased(self, logs: list[Any]) -> list[Any]:
        if not self._hit("mixed_case"):
            return logs
        self.counts["mixed_case"] += 1
        return [log | {"address": checksum(log["address"])} for log in logs]
