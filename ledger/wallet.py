"""Wallets for the command line: encrypted keystore files (Web3 Secret Storage v3), unlocked in memory only.

A key never stands in an argument, an environment variable or a log: it comes from a keystore file whose password is
read from a terminal or from a file only its owner can read.
"""

import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from coincurve import PrivateKey
from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_typing import Hash32 as Digest

from ledger.chain.prepared import PreparedTransaction
from ledger.core.errors import Conflict, InputInvalid, NotFound, SluiceError
from ledger.core.ids import Address, checksum, parse_address, parse_bytes, raw
from ledger.core.signing import recover
from ledger.core.siwe import personal_digest
from ledger.core.typed_data import Domain, Message


class WrongPassword(SluiceError):
    """The password does not open the keystore."""

    code = "wrong_password"


@dataclass(frozen=True, slots=True)
class Wallet:
    """An unlocked keystore: signs messages and transactions, and shows only its address."""

    path: Path
    address: Address
    _account: LocalAccount = field(repr=False)
    _key: PrivateKey = field(repr=False)

    def sign(self, message: Message, domain: Domain) -> str:
        """65 bytes r ‖ s ‖ v as 0x-hex."""
        # libsecp256k1 makes the same signature as eth_account (RFC 6979, low s) in a seventh of the time.
        signed = self._key.sign_recoverable(raw(message.digest(domain)), hasher=None)
        return "0x" + signed[:64].hex() + ("1b", "1c")[signed[64]]

    def sign_text(self, text: str) -> str:
        """65 bytes r ‖ s ‖ v as 0x-hex over a text (EIP-191): signing in."""
        signed = self._account.unsafe_sign_hash(Digest(raw(personal_digest(text))))
        return "0x" + bytes(signed.signature).hex()

    def sign_transaction(self, prepared: PreparedTransaction) -> str:
        """The signed EIP-1559 bytes as 0x-hex.

        Raises:
            InputInvalid: the transaction was prepared for another sender.
        """
        if prepared.sender != self.address:
            raise InputInvalid(f"the transaction is prepared for {prepared.sender}, this wallet is {self.address}")
        fields = prepared.unsigned()
        if prepared.to is not None:
            fields["to"] = checksum(prepared.to)
        return "0x" + bytes(self._account.sign_transaction(fields).raw_transaction).hex()


class SignerFailed(SluiceError):
    """The external signer did not answer, refused, or signed with another key."""

    code = "signer_failed"


@dataclass(frozen=True, slots=True)
class ExternalSigner:
    """A signer in another process or machine, asked over Clef's JSON-RPC (`account_signTypedData`): no key is here.

    What it gives is checked before it is used. Safe for several threads.
    """

    url: str
    address: Address
    seconds: float = 10

    def sign(self, message: Message, domain: Domain) -> str:
        """65 bytes r ‖ s ‖ v as 0x-hex. Raises SignerFailed."""
        asked = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "account_signTypedData",
            "params": [checksum(self.address), message.typed_data(domain)],
        }
        try:
            answer = httpx.post(self.url, json=asked, timeout=self.seconds).json()
            signed = parse_bytes(answer["result"], "signature", 65)
            if signed[64] < 2:
                signed = signed[:64] + bytes([signed[64] + 27])  # some give the parity itself
            signature = "0x" + signed.hex()
            if recover(message.digest(domain), signature) != self.address:
                raise SignerFailed(f"the signer at {self.url} signed with another key than {self.address}")
        except (httpx.HTTPError, ValueError, KeyError, TypeError, InputInvalid) as problem:
            raise SignerFailed(f"the signer at {self.url} gave no signature: {type(problem).__name__}") from problem
        return signature


def create(path: Path, password: str) -> Address:
    """A new key in a new keystore file. Never overwrites one."""
    return _save(path, Account.create(), password)


def import_key(path: Path, key: str, password: str) -> Address:
    """A known key into a new keystore file. `key` is 32 bytes of hex, read from a terminal or a pipe."""
    try:
        account = Account.from_key(key.strip())
    except Exception:
        # The exception's own text may repeat the key.
        raise InputInvalid("this is not a private key: 32 bytes as hex are expected", field="key") from None
    return _save(path, account, password)


def address_of(path: Path) -> Address:
    """The address a keystore file names, without opening it."""
    return parse_address("0x" + str(_read(path).get("address", "")).removeprefix("0x"), "keystore address")


def unlock(path: Path, password: str) -> Wallet:
    """Raises NotFound, InputInvalid (not a keystore) or WrongPassword."""
    content = _read(path)
    try:
        key = Account.decrypt(content, password)
    except ValueError as problem:
        if "MAC" in str(problem):
            raise WrongPassword(f"the password does not open {path}") from None
        raise InputInvalid(f"{path} is not a keystore file", field="keystore") from None
    except (KeyError, TypeError, NotImplementedError):
        raise InputInvalid(f"{path} is not a keystore file", field="keystore") from None
    account: LocalAccount = Account.from_key(key)
    return Wallet(path, Address(account.address.lower()), account, PrivateKey(bytes(account.key)))


def read_password(path: Path) -> str:
    """The first line of a password file. Refuses a file that others can read."""
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(f"there is no password file {path}") from None
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        raise InputInvalid(f"{path} can be read by others; run `chmod 600 {path}`", field="password_file")
    return text.split("\n", 1)[0]


def _save(path: Path, account: LocalAccount, password: str) -> Address:
    if len(password) < 8:
        raise InputInvalid("a keystore password has at least 8 characters", field="password")
    path.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps(Account.encrypt(account.key, password), indent=1) + "\n"
    try:
        # Created for its owner alone, and never over another wallet.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(content)
    except FileExistsError:
        raise Conflict(f"{path} exists already; a wallet is never overwritten") from None
    return Address(account.address.lower())


def _read(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFound(f"there is no wallet {path}; run `sluice wallet new {path}`") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise InputInvalid(f"{path} is not a keystore file", field="keystore") from None
    if not isinstance(content, dict):
        raise InputInvalid(f"{path} is not a keystore file", field="keystore")
    return content
