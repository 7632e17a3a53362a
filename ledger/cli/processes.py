"""Processes of the demonstration: a chain, servers and parties, started on free ports and stopped again."""

import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ledger.chain.client import Chain, NodeDown
from ledger.core.errors import NotFound, SluiceError
from ledger.core.loopback import HOST, listen


class PartyFailed(SluiceError):
    """A party's command failed."""

    code = "party_failed"


def anvil_binary() -> str:
    """The chain that npm installed, or one on PATH."""
    return foundry_binary("anvil")


def foundry_binary(tool: str) -> str:
    """One of Foundry's tools, by name: what npm installed, or one on PATH."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    local = Path("node_modules") / "@foundry-rs" / f"{tool}-{platform.system().lower()}-{machine}" / "bin" / tool
    found = str(local.resolve()) if local.exists() else shutil.which(tool)
    if found is None:
        raise NotFound(f"there is no {tool}; run `make setup` (or `npm ci`) first")
    return found


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


class Processes:
    """Started together, stopped together: the last one first, by id."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self.running: list[subprocess.Popen[str]] = []
        logs.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        # Whoever stops us, by Ctrl-C or as a service manager does, stops what we started; a shell that starts us in the
        # background has turned SIGINT off.
        for number in (signal.SIGINT, signal.SIGTERM):
            if threading.current_thread() is threading.main_thread():
                signal.signal(number, _interrupted)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Asks each to end, and ends those that do not."""
        while self.running:
            process = self.running.pop()
            if process.stdin:
                process.stdin.close()
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout:
                process.stdout.close()

    def kill_last(self) -> None:
        """Ends the last started process as a power cut would: no signal it could answer."""
        process = self.running.pop()
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()

    def start(self, name: str, command: Sequence[str], *, talk: bool = False, read: bool = False) -> Any:
        """Starts a process; stderr goes to a log file named after it."""
        with (self._logs / f"{name}.log").open("w") as log:
            process = subprocess.Popen(  # noqa: S603 - our own commands, no shell
                list(command),
                stdin=subprocess.PIPE if talk else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talk or read else log,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C reaches us alone; we stop them in order
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        self.running.append(process)
        return process

    def anvil(self, state: Path, port: int = 0, seconds: float = 20, slots: int = 4) -> str:
        """A chain whose state stays in a file; a block is final under twice `slots` others. Returns its URL."""
        # Asked for first: a chain that is there already would answer in this one's place.
        with listen(port) as probe:
            port = probe.getsockname()[1]
        options = ["--host", HOST, "--port", str(port), "--silent", "--state", str(state), "--state-interval", "2"]
        process = self.start("anvil", [anvil_binary(), *options, "--slots-in-an-epoch", str(slots)])
        url = f"http://{HOST}:{port}"
        chain = Chain(url, attempts=1)
        deadline = time.monotonic() + seconds
        while True:
            try:
                chain.chain_id()
                return url
            except NodeDown:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise NodeDown(f"anvil did not start; see {self._logs / 'anvil.log'}") from None
                time.sleep(0.05)

    def server(self, name: str, command: Sequence[str]) -> str:
        """A server of ours; waits until it says where it listens. Returns its URL."""
        process = self.start(name, command, read=True)
        line = process.stdout.readline()
        if not line:
            raise PartyFailed(f"{name} did not start: {(self._logs / f'{name}.log').read_text().strip()}")
        url: str = json.loads(line)["url"]
        return url

    def party(self, name: str, options: Sequence[str]) -> "Party":
        """A party's own process, with its own wallet."""
        command = [sys.executable, "-m", "ledger.cli.main", "--json", "--yes", *options, "shell"]
        return Party(name, self.start(name, command, talk=True))


class Party:
    """Somebody at a shell of their own: `party("space list")` runs one command there."""

    def __init__(self, name: str, process: subprocess.Popen[str]) -> None:
        self.name = name
        self._process = process

    def __call__(self, *arguments: object) -> Any:
        """The command's result. Raises PartyFailed with the command's own code and sentence."""
        answer = self.ask(*arguments)
        if isinstance(answer, dict) and set(answer) == {"error"}:
            error = answer["error"]
            command = " ".join(str(a) for a in arguments[:2])
            raise PartyFailed(f"{self.name}: `sluice {command}`: {error['message']} [{error['code']}]", error=error)
        return answer

    def ask(self, *arguments: object) -> Any:
        """The command's result, or {"error": …}."""
        self.say(*arguments)
        return self.hear()

    def say(self, *arguments: object) -> None:
        """Sends a command without waiting for its result."""
        assert self._process.stdin is not None
        self._process.stdin.write(shlex.join(str(a) for a in arguments) + "\n")
        self._process.stdin.flush()

    def hear(self) -> Any:
        """The next result."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise PartyFailed(f"{self.name}'s process ended")
        return json.loads(line)
