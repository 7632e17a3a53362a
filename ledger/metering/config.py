"""A gateway's configuration, one YAML or JSON file: what is metered, by which policy, and how careful to be."""

from pathlib import Path
from typing import Any

import msgspec
import yaml

from ledger.core.errors import InputInvalid, NotFound
from ledger.core.ids import parse_hash
from ledger.core.parse import parse_uint
from ledger.core.terms import Quad
from ledger.metering.middleware import Metered


class RouteSettings(msgspec.Struct, forbid_unknown_fields=True, rename="kebab", frozen=True):
    """One line per route; see `ledger.metering.middleware.Metered`."""

    path: str
    version: str | None = None
    modality: str = "API_PULL"
    methods: tuple[str, ...] = ("GET",)
    counts: tuple[str, ...] | None = None
    count_failures: bool = False
    stream: bool = False
    count_aborted: bool = False
    hold: tuple[int, ...] = ()


class SignerSettings(msgspec.Struct, forbid_unknown_fields=True, rename="kebab", frozen=True):
    """An external signer, asked over Clef's JSON-RPC."""

    url: str
    address: str


class SourceSettings(msgspec.Struct, forbid_unknown_fields=True, rename="kebab", frozen=True):
    """One published file, served as rows or as a file."""

    version: str
    file: str
    kind: str = "file"
    policy: str | None = None


class Settings(msgspec.Struct, forbid_unknown_fields=True, rename="kebab", frozen=True):
    """Everything a gateway can be told. Paths are relative to the file."""

    origin: str | None = None  # the URL consumers see, if it is not the address it listens on
    provider: str | None = None  # whose data it is, if the wallet is a session key of it
    signer: SignerSettings | None = None  # instead of a wallet on this machine
    policies: tuple[str, ...] = ()  # files
    finality: str = "seen"  # or final: serve once an opening cannot be taken back
    credit_up_to: str = "0"  # token units: disputes worth no more are credited at once
    upstream: str | None = None  # the API behind the gateway
    routes: tuple[RouteSettings, ...] = ()
    files: str | None = None  # a folder of published files
    sources: tuple[SourceSettings, ...] = ()
    sign_after: int = 300  # seconds that uses may wait for the consumer's signature before it is asked for


def read_settings(path: Path) -> Settings:
    """Raises NotFound, or InputInvalid naming what cannot be read."""
    try:
        document: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        settings = msgspec.convert(document, Settings)
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}") from None
    except (yaml.YAMLError, UnicodeDecodeError, msgspec.ValidationError, RecursionError) as problem:
        raise InputInvalid(f"{path}: {problem}", field="config") from None
    if settings.finality not in ("seen", "final"):
        raise InputInvalid(f"{path}: finality is seen or final, not {settings.finality!r}", field="finality")
    return settings


def rule_of(route: RouteSettings) -> Metered:
    """Raises InputInvalid, naming the field."""
    if len(route.hold) > 4:
        raise InputInvalid(f"{route.path}: hold is units of at most four meters", field="hold")
    a, b, c, d = [*(parse_uint(n, "hold", 64) for n in route.hold), 0, 0, 0, 0][:4]
    hold: Quad = (a, b, c, d)
    return Metered(
        path=route.path,
        version=None if route.version is None else parse_hash(route.version, "version"),
        modality=route.modality,
        methods=tuple(method.upper() for method in route.methods),
        counts=route.counts,
        count_failures=route.count_failures,
        stream=route.stream,
        count_aborted=route.count_aborted,
        hold=hold,
    )
