"""Settings, read at the entrances (api and command line) and nowhere else.

Everything of one installation lies in one folder, its *home*: `--home`, or SLUICE_HOME, or `./build/sluice`.
No setting holds a key or a password.
"""

import os
from dataclasses import dataclass
from pathlib import Path

DEFAULT_RPC = "http://127.0.0.1:8545"
DEFAULT_API = "http://127.0.0.1:8480"


@dataclass(frozen=True, slots=True)
class Settings:
    """`home` holds deployment.json and, unless `database` names a PostgreSQL database, the databases."""

    home: Path
    rpc: str
    api: str
    database: str | None = None

    @property
    def deployment(self) -> Path:
        return self.home / "deployment.json"

    @property
    def mirror(self) -> Path | str:
        return self.database or self.home / "mirror.db"

    @property
    def webhooks(self) -> Path | str:
        return self.database or self.home / "webhooks.db"

    @property
    def sessions(self) -> Path | str:
        return self.database or self.home / "sessions.db"

    @property
    def usage(self) -> Path | str:
        return self.database or self.home / "usage.db"


def settings(home: str | None = None, rpc: str | None = None, api: str | None = None) -> Settings:
    """Arguments first, then SLUICE_HOME, SLUICE_RPC, SLUICE_API and SLUICE_DATABASE, then defaults."""
    return Settings(
        Path(home or os.environ.get("SLUICE_HOME") or "build/sluice"),
        rpc or os.environ.get("SLUICE_RPC") or DEFAULT_RPC,
        api or os.environ.get("SLUICE_API") or DEFAULT_API,
        os.environ.get("SLUICE_DATABASE") or None,
    )
