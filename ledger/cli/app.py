"""What every command shares: settings, the wallet, the server's API, and how results are shown.

A write goes up one staircase: the call is encoded here, the server prepares and simulates it, the two are compared, the
wallet signs here, the server passes the signed bytes on. A server that prepared another call is found out before
anything is signed.
"""

import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from ledger import wallet as wallets
from ledger.chain.deploy import Deployment
from ledger.chain.operations import encode
from ledger.chain.prepared import PreparedTransaction
from ledger.client import LedgerClient, ServerDown, ServerProblem
from ledger.config import Settings
from ledger.core.errors import InputInvalid, NotFound, VerificationFailed
from ledger.core.hashing import keccak256
from ledger.core.ids import Address, Hash32, hash_of, parse_bytes, parse_hash
from ledger.core.parse import load_json
from ledger.core.terms import AuthorizationTerms, UsageHead
from ledger.core.typed_data import Domain
from ledger.wallet import Wallet

_NUMBER = re.compile(r"(\[bold\])?[\d,.]*( CNY)?(\[/\])?")
MAX_FEE_WEI = 500 * 10**9  # per gas; a server asking for more is not believed


@dataclass
class App:
    """One invocation, or one shell."""

    settings: Settings
    as_json: bool = False
    wallet_path: Path | None = None
    password_file: Path | None = None
    assume_yes: bool = False
    console: Console = field(default_factory=Console)

    # ------------------------------------------------------------------------------------------ identities

    @cached_property
    def wallet(self) -> Wallet:
        """The unlocked wallet. Asks for its password once."""
        if self.wallet_path is None:
            raise InputInvalid("say whose wallet signs: --wallet FILE", field="wallet")
        return wallets.unlock(self.wallet_path, self.password())

    @property
    def address(self) -> Address:
        if self.wallet_path is None:
            raise InputInvalid("say whose wallet it is: --wallet FILE", field="wallet")
        return wallets.address_of(self.wallet_path)

    def password(self, *, confirm: bool = False) -> str:
        """From --password-file, else from the terminal."""
        if self.password_file is not None:
            return wallets.read_password(self.password_file)
        answer: str = click.prompt("password", hide_input=True, confirmation_prompt=confirm, err=True)
        return answer

    @cached_property
    def deployment(self) -> Deployment:
        """The pinned deployment file: what this client trusts."""
        return Deployment.load(self.settings.deployment)

    def domain(self, terms: AuthorizationTerms) -> Domain:
        return self.deployment.domain(terms.ledger)

    # ---------------------------------------------------------------------------------------------- server

    @cached_property
    def client(self) -> LedgerClient:
        return LedgerClient(self.settings.api, notice=self.note)

    def connect(self, url: str) -> None:
        """Another server from now on."""
        self.settings = replace(self.settings, api=url)
        self.close()

    def close(self) -> None:
        """Closes the connection to the server, if there is one."""
        client = self.__dict__.pop("client", None)
        if client is not None:
            client.close()

    def get(self, path: str, **params: Any) -> Any:
        """A read. Raises ServerProblem or ServerDown."""
        return self._request("GET", path, params={k: v for k, v in params.items() if v is not None})

    def all(self, path: str, **params: Any) -> list[Any]:
        """Every item of a list, page after page."""
        page = self.get(path, **params, limit=1000)
        items: list[Any] = page["items"]
        while page["next"] is not None:
            page = self.get(path, **params, limit=1000, after=page["next"])
            items += page["items"]
        return items

    def post(self, path: str, body: Any) -> Any:
        return self._request("POST", path, json=body)

    def delete(self, path: str) -> None:
        self._request("DELETE", path)

    def _request(self, method: str, path: str, **options: Any) -> Any:
        """Signs in where the server asks who reads."""
        try:
            return self.client.request(method, path, **options)
        except ServerProblem as problem:
            if problem.code != "not_signed_in":
                raise
            if self.wallet_path is None:
                raise InputInvalid("this is not public: say who reads it: --wallet FILE", field="wallet") from None
        self.client.sign_in(self.wallet, self.deployment.chain_id)
        return self.client.request(method, path, **options)

    def terms(self, authorization: str) -> tuple[Hash32, AuthorizationTerms]:
        """The terms behind an id, checked: their digest is the id."""
        wanted = parse_hash(authorization, "authorization")
        terms = AuthorizationTerms.from_json(self.get(f"/v1/authorizations/{wanted}")["terms"])
        if terms.digest(self.domain(terms)) != wanted:
            raise VerificationFailed(f"the server gave other terms than those of {wanted}")
        return wanted, terms

    # ---------------------------------------------------------------------------------------------- writes

    def write(self, operation: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Prepare, compare, sign, send, wait until the mirror has it; returns what came of it."""
        call = encode(self.deployment, operation, arguments)
        answer = self.post(
            "/v1/transactions/prepare", {"operation": operation, "arguments": arguments, "sender": self.address}
        )
        offered = answer["transaction"]
        prepared = PreparedTransaction(
            operation=operation,
            chain_id=self.deployment.chain_id,
            sender=self.address,
            to=call.to,
            data="0x" + call.data.hex(),
            nonce=int(offered["nonce"]),
            gas=int(offered["gas"]),
            max_fee_per_gas=int(offered["maxFeePerGas"]),
            max_priority_fee_per_gas=int(offered["maxPriorityFeePerGas"]),
            summary=call.summary,
            result=answer["result"],
        )
        mine = {k: str(v) if isinstance(v, int) and k != "type" else v for k, v in prepared.unsigned().items()}
        different = [name for name in mine if offered.get(name) != mine[name]]
        if different or set(offered) != set(mine):
            raise VerificationFailed(f"the server prepared another transaction: {', '.join(different)} differ")
        if prepared.max_fee_per_gas > MAX_FEE_WEI:
            raise VerificationFailed(f"the server asks for {prepared.max_fee_per_gas} wei per gas; refused")
        self._confirm(prepared)
        signed = self.wallet.sign_transaction(prepared)
        sent = hash_of(keccak256(parse_bytes(signed)))  # known here: the server's word is not needed
        try:
            answered = self.post("/v1/transactions", {"signed": signed})["transaction"]
        except ServerDown as problem:
            raise ServerDown(f"{problem.message} Transaction {sent} is signed and may have been sent.") from problem
        if answered != sent:
            raise VerificationFailed(f"the server speaks of transaction {answered}, signed was {sent}")
        status = self.follow(sent)
        return {
            "operation": operation,
            "summary": call.summary,
            "transaction": sent,
            "block": status["block"],
            "gasUsed": int(status["gasUsed"]),
            "result": prepared.result,
            "events": status["events"],
        }

    def _confirm(self, prepared: PreparedTransaction) -> None:
        if self.asks:
            self.console.print(f"[bold]{prepared.summary['zh']}[/]\n{prepared.summary['en']}")
            most = prepared.gas * prepared.max_fee_per_gas
            self.console.print(
                f"chain {prepared.chain_id} · to {prepared.to} · at most {most / 10**18:.6f} native coin"
            )
        self.confirm()

    @property
    def asks(self) -> bool:
        """True if a person is there to be asked before something is signed."""
        return not (self.assume_yes or self.as_json) and sys.stdin.isatty()

    def confirm(self) -> None:
        """Asks before signing. Where nobody can be asked, --yes must have been given."""
        if self.asks:
            click.confirm("签名 sign?", abort=True)
        elif not self.assume_yes:
            raise InputInvalid("nobody is there to be asked: say --yes to sign", field="yes")

    def follow(self, transaction: str, seconds: float = 60) -> dict[str, Any]:
        """Waits until the transaction is in a block the mirror has applied. Raises ServerProblem if it failed."""
        waited, pause = 0.0, 0.02
        while True:
            status: dict[str, Any] = self.get(f"/v1/transactions/{transaction}")
            if status["status"] == "failed":
                raise ServerProblem(status.get("reason") or f"transaction {transaction} failed", "reverted")
            if status["mirrored"]:
                return status
            if waited > seconds:
                raise ServerProblem(f"transaction {transaction} is not mirrored after {seconds:.0f} s", "still_pending")
            time.sleep(pause)
            waited += pause
            pause = min(pause * 1.5, 0.5)

    # ---------------------------------------------------------------------------------------------- output

    def show(self, value: Any, human: Callable[[], None] | None = None) -> None:
        """The result: JSON with --json, else for people."""
        if self.as_json:
            click.echo(json.dumps(value, ensure_ascii=False))
        elif human is not None:
            human()
        else:
            self.console.print_json(json.dumps(value, ensure_ascii=False))

    def show_write(self, done: dict[str, Any], **more: Any) -> None:
        """The result of a write, with what it created."""

        def human() -> None:
            self.console.print(f"[green]✓[/] {done['summary']['zh']} · {done['summary']['en']}")
            for name, value in more.items():
                self.console.print(f"  {name:<14} {value}")
            self.console.print(f"  {'transaction':<14} {done['transaction']}")
            self.console.print(f"  {'block':<14} {done['block']}, gas {done['gasUsed']:,}")

        self.show(done | more, human)

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        table = Table(title=title, title_justify="left", title_style="bold")
        cells = [[str(cell) for cell in row] for row in rows]
        for n, column in enumerate(columns):
            numbers = all(_NUMBER.fullmatch(row[n]) for row in cells)
            table.add_column(column, overflow="fold", justify="right" if numbers else "left")
        for row in cells:
            table.add_row(*row)
        self.console.print(table)

    def note(self, text: str) -> None:
        """Something on the side, to stderr."""
        click.echo(text, err=True)

    def require_file(self, path: Path) -> Any:
        """JSON from a file. Raises NotFound or InputInvalid."""
        try:
            return load_json(path.read_bytes(), str(path))
        except (FileNotFoundError, IsADirectoryError):
            raise NotFound(f"there is no file {path}") from None

    def agreement(self, authorization: Hash32) -> Path:
        """Where this home keeps what was agreed under an authorization: terms, policy, card and split."""
        return self.settings.home / "agreements" / f"{authorization}.json"


def short(identifier: str) -> str:
    """An id for tables: first and last digits."""
    return identifier if len(identifier) < 24 else f"{identifier[:10]}…{identifier[-6:]}"


pass_app = click.make_pass_decorator(App)
"""Hands the App to a command as its first argument."""


def settled_head(row: Mapping[str, Any]) -> UsageHead | None:
    """The settled head of an authorization as the server shows it; None before the first."""
    if row["size"] == "0":
        return None
    names = ("size", "units", "credits", "asOf", "root")
    return UsageHead.from_json({"authorizationId": row["authorization"]} | {name: row[name] for name in names})
