"""Database files: opening, refusing what is not ours, and the column types the packages share.
A connection reads one state of the database from its first question on; `writing` is how anything is written.

Each package owns its tables; this module only knows files. Amounts are text in the database: a uint128 does not fit
into SQLite's integers, and money is never a float.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Dialect, Engine, MetaData, String, create_engine, event
from sqlalchemy.exc import DatabaseError
from sqlalchemy.types import TypeDecorator

from ledger.core.errors import DatabaseCorrupt

APPLICATION_ID = 0x536C6365  # "Slce"


class Amount(TypeDecorator[int]):
    """A whole number of any size, as decimal text."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> str | None:
        return None if value is None else str(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> int | None:
        return None if value is None else int(value)


def open_database(path: Path, metadata: MetaData, schema_version: int) -> Engine:
    """Opens or creates a SQLite file with these tables.

    Write-ahead log, synchronous FULL: what was committed survives a power cut.

    Raises:
        DatabaseCorrupt: the file is damaged, belongs to another program, or has another schema version.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 30, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _: Any) -> None:
        # The driver would begin a transaction at the first write only, and two reads would see two states.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("sluice_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    with database_errors(path):
        with engine.connect() as connection:
            application, version = (
                connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("application_id", "user_version")
            )
            empty = connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one() == 0
            if not empty and application != APPLICATION_ID:
                raise DatabaseCorrupt(f"{path} is a database of another program", path=str(path))
            if not empty and version != schema_version:
                raise DatabaseCorrupt(
                    f"{path} has schema {version}, this version of Sluice needs {schema_version}", path=str(path)
                )
            problem = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
            if problem != "ok":
                raise DatabaseCorrupt(f"{path} is damaged: {problem}", path=str(path))
        if empty:
            with writing(engine) as connection:
                metadata.create_all(connection)
                connection.exec_driver_sql(f"PRAGMA application_id={APPLICATION_ID}")
                connection.exec_driver_sql(f"PRAGMA user_version={schema_version}")
    return engine


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that will write: it takes the write lock first, so that what it reads stays true."""
    with engine.connect().execution_options(sluice_writes=True) as connection, connection.begin():
        yield connection


@contextmanager
def database_errors(path: Path) -> Iterator[None]:
    """SQLite's "malformed" and "not a database" as DatabaseCorrupt, with the way out."""
    try:
        yield
    except DatabaseError as problem:
        text = str(problem.orig)
        if any(sign in text for sign in ("malformed", "not a database", "disk image", "file is encrypted")):
            raise DatabaseCorrupt(
                f"{path} is damaged ({text}); keep the file, and run `sluice mirror rebuild` if it is a mirror",
                path=str(path),
            ) from problem
        raise
