"""A node, over JSON-RPC: retried while it is down, and never trusted to be the right chain unasked."""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec
from requests import Session
from requests.exceptions import ConnectionError as RequestsConnectionError
from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError
from web3 import HTTPProvider
from web3.types import RPCEndpoint

from ledger.chain.decode import Reverted, decode_revert, reverted
from ledger.core.errors import ChainError
from ledger.core.events import Block
from ledger.core.ids import Address, Hash32

# A library that web3 imports raises Python's recursion limit a hundredfold: then deeply nested JSON from outside
# overflows the C stack and ends the process, where it should be an error.
sys.setrecursionlimit(1000)


T = TypeVar("T")


class _Head(msgspec.Struct, rename="camel"):
    number: str
    hash: str
    parent_hash: str
    timestamp: str

    def block(self) -> Block:
        number, timestamp = int(self.number, 16), int(self.timestamp, 16)
        return Block(number, Hash32(self.hash), Hash32(self.parent_hash), timestamp)


class _Answer(msgspec.Struct):
    id: Any
    result: _Head | None = None
    error: Any = None


class NodeDown(ChainError):
    """The node does not answer."""

    code = "node_down"


class NodeError(ChainError):
    """The node answered with an error of its own."""

    code = "node_error"


class WrongChain(ChainError):
    """The node is on another chain than the deployment."""

    code = "wrong_chain"


def _silent(_: str) -> None:
    pass


class Chain:
    """One node. `notice` is told in words when a call has to be tried again.

    `attempts` calls are made with pauses of 0.2 s, 0.4 s, 0.8 s … before NodeDown is raised.
    """

    def __init__(
        self,
        url: str,
        *,
        attempts: int = 5,
        timeout: float = 20,
        notice: Callable[[str], None] = _silent,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = url
        self._attempts = attempts
        self._notice = notice
        self._sleep = sleep
        self._timeout = timeout
        self._session = Session()
        self._provider = HTTPProvider(url, request_kwargs={"timeout": timeout}, exception_retry_configuration=None)

    # ------------------------------------------------------------------------------------------ raw calls

    def rpc(self, method: str, *params: Any) -> Any:
        """One call. Raises NodeDown, Reverted (with the contract's reason) or NodeError."""
        answer = self._tried(lambda: self._provider.make_request(RPCEndpoint(method), list(params)))
        return _result(answer, method)

    def batch(self, calls: Sequence[tuple[str, list[Any]]]) -> list[Any]:
        """Many calls in one request, answers in the order of the calls."""
        if not calls:
            return []
        answers = self._tried(
            lambda: self._provider.make_batch_request([(RPCEndpoint(method), params) for method, params in calls])
        )
        if not isinstance(answers, list) or len(answers) != len(calls):
            raise NodeError("the node answered a batch with another number of results", method=calls[0][0])
        return [_result(a, calls[0][0]) for a in sorted(answers, key=lambda a: a["id"])]

    def post(self, method: str, params: Sequence[Any], kind: type[T]) -> T:
        """One call whose answer is read straight into `kind`, error and all: for answers of many megabytes."""
        return self.read(self.ask(method, params), kind)

    def ask(self, method: str, params: Sequence[Any]) -> bytes:
        """One call's answer as it came."""
        return self._asked({"jsonrpc": "2.0", "id": 0, "method": method, "params": params})

    def read(self, answer: bytes, kind: type[T]) -> T:
        """An answer as a value. Raises NodeError if it is of another kind."""
        try:
            return msgspec.json.decode(answer, type=kind)
        except msgspec.MsgspecError as problem:
            raise NodeError(f"the node's answer is not what was asked for: {problem}") from problem

    def post_batch(self, calls: Sequence[tuple[str, list[Any]]], kind: type[list[T]]) -> list[T]:
        """Many calls in one request, answers in the order of the calls, each read straight into its kind."""
        if not calls:
            return []
        asked = [{"jsonrpc": "2.0", "id": n, "method": m, "params": p} for n, (m, p) in enumerate(calls)]
        answers: Any = self.read(self._asked(asked), kind)
        found = {answer.id: answer for answer in answers}
        if len(answers) != len(calls) or found.keys() != set(range(len(calls))):
            raise NodeError("the node answered a batch with other calls' results", method=calls[0][0])
        return [found[n] for n in range(len(calls))]

    def _asked(self, asked: Any) -> bytes:
        body = msgspec.json.encode(asked)

        def call() -> bytes:
            headers = {"Content-Type": "application/json"}
            with self._session.post(self.url, body, headers=headers, timeout=self._timeout, stream=True) as answer:
                answer.raise_for_status()
                # In one piece: requests itself reads ten kilobytes at a time.
                try:
                    content: bytes = answer.raw.read(decode_content=True)
                except HTTPError as problem:
                    raise RequestsConnectionError(problem) from problem
                return content

        answer: bytes = self._tried(call)
        return answer

    def _tried(self, call: Callable[[], Any]) -> Any:
        for attempt in range(1, self._attempts + 1):
            try:
                return call()
            except (RequestException, ConnectionError, TimeoutError) as problem:
                if attempt == self._attempts:
                    raise NodeDown(
                        f"the node at {self.url} does not answer ({type(problem).__name__}), {attempt} attempts",
                        url=self.url,
                    ) from problem
                pause = 0.1 * 2**attempt
                self._notice(f"the node at {self.url} does not answer; trying again in {pause:.1f} s")
                self._sleep(pause)
        raise AssertionError("unreachable")

    # ---------------------------------------------------------------------------------------------- reads

    def chain_id(self) -> int:
        return int(self.rpc("eth_chainId"), 16)

    def block(self, at: int | str) -> Block | None:
        """By number or tag; None if there is none yet (or the node does not know the tag)."""
        try:
            found = self.rpc("eth_getBlockByNumber", hex(at) if isinstance(at, int) else at, False)
        except NodeError:
            if at in ("safe", "finalized"):
                return None  # consortium nodes may not know these tags
            raise
        block = _block(found) if found else None
        if block is not None and isinstance(at, int) and block.number != at:
            raise NodeError(f"the node returned block {block.number} for block {at}")
        return block

    def heads(self) -> tuple[Block, Block | None, Block | None]:
        """The latest, safe and final block in one request; None where the node does not know the tag."""
        calls = [("eth_getBlockByNumber", [tag, False]) for tag in ("latest", "safe", "finalized")]
        latest, safe, final = self.post_batch(calls, list[_Answer])
        if latest.result is None:
            raise NodeError(f"the node has no latest block: {latest.error}", method="eth_getBlockByNumber")
        found = [answer.result.block() if answer.result else None for answer in (safe, final)]
        return latest.result.block(), found[0], found[1]

    def code(self, address: Address) -> bytes:
        return bytes.fromhex(self.rpc("eth_getCode", address, "latest")[2:])

    def balance(self, address: Address) -> int:
        """Wei."""
        return int(self.rpc("eth_getBalance", address, "latest"), 16)

    def nonce(self, address: Address) -> int:
        """The next nonce, transactions in the pool counted."""
        return int(self.rpc("eth_getTransactionCount", address, "pending"), 16)

    def call(self, to: Address, data: bytes, sender: Address | None = None, at: str = "latest") -> bytes:
        """eth_call. Raises Reverted with the contract's reason."""
        request = {"to": to, "data": "0x" + data.hex()} | ({"from": sender} if sender else {})
        return bytes.fromhex(self.rpc("eth_call", request, at)[2:])


def _result(answer: Any, method: str) -> Any:
    error = answer.get("error")
    if error is None:
        return answer["result"]
    data = error.get("data") if isinstance(error, dict) else None
    if isinstance(data, dict):  # some nodes nest it
        data = data.get("data")
    message = error.get("message", "") if isinstance(error, dict) else str(error)
    if isinstance(data, str) and data.startswith("0x") and method in ("eth_call", "eth_estimateGas"):
        raise reverted(decode_revert(bytes.fromhex(data[2:])))
    if "revert" in message.lower():
        raise Reverted(f"the contract refused: {message}", error="", args={})
    raise NodeError(f"{method}: {message}", method=method)


def _block(found: Any) -> Block:
    return Block(
        int(found["number"], 16), Hash32(found["hash"]), Hash32(found["parentHash"]), int(found["timestamp"], 16)
    )
