"""Databases: a SQLite file or a PostgreSQL schema, and the column types the packages share.

A connection reads one state of the database from its first question on; `writing` is how anything is written. Each
package owns its tables; this module only knows files and servers. Amounts are whole numbers of any size: NUMERIC in
PostgreSQL; in SQLite an integer, or text beyond its 64 bits. Ids are bytes in the database and 0x-hex outside. What is
written is not among the words of an error: those end in logs.
"""

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Dialect,
    Engine,
    LargeBinary,
    MetaData,
    Numeric,
    Table,
    create_engine,
    event,
    make_url,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DatabaseError
from sqlalchemy.types import TypeDecorator, TypeEngine, UserDefinedType

from ledger.core.errors import DatabaseCorrupt, InputInvalid

APPLICATION_ID = 0x536C6365  # "Slce"
SQLITE_MOST = 2**63 - 1

Target = Path | str
"""A file, or the URL of a PostgreSQL database: `postgresql://user@host/database`, passwords in ~/.pgpass."""


class _Whole(UserDefinedType[Any]):
    """A SQLite column that keeps what it is given: its declared type has no affinity."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "BLOB"


class Amount(TypeDecorator[int]):
    """A whole number of any size."""

    impl = Numeric(39, 0)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(_Whole() if dialect.name == "sqlite" else Numeric(39, 0))

    def process_bind_param(self, value: int | None, dialect: Dialect) -> Any:
        return plain_amount(value) if dialect.name == "sqlite" and value is not None else value

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:
        return None if value is None else int(value)


def plain_amount(value: int) -> int | str:
    """An amount as SQLite keeps it."""
    return value if -SQLITE_MOST <= value <= SQLITE_MOST else str(value)


class Flags(TypeDecorator[int]):
    """64 bits, as a signed number in the database: bits can be asked for there, sums cannot."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> int | None:
        return value - (1 << 64) if value is not None and value > SQLITE_MOST else value

    def process_result_value(self, value: int | None, dialect: Dialect) -> int | None:
        return value + (1 << 64) if value is not None and value < 0 else value


class Hex(TypeDecorator[str]):
    """An id or address: bytes in the database, lower-case 0x-hex outside."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:
        return None if value is None else bytes.fromhex(value[2:])

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> str | None:
        return None if value is None else "0x" + value.hex()


def connect(target: Target, schema: str | None = None) -> Engine:
    """An engine on a SQLite file or a PostgreSQL database; `schema` names the namespace in the latter.

    SQLite: write-ahead log, synchronous FULL: what was committed survives a power cut.

    Raises:
        InputInvalid: the URL is of another kind of database.
    """
    if isinstance(target, Path):
        return _sqlite(target)
    url = make_url(target)
    if url.get_backend_name() not in ("postgresql", "postgres"):
        kind = url.get_backend_name()
        raise InputInvalid(f"{kind} is not a database Sluice knows; use postgresql://", field="database")
    if schema is not None and not re.fullmatch(r"[a-z_][a-z0-9_]*", schema):
        raise InputInvalid(f"{schema!r} is no name of a schema", field="schema")
    options = {"options": f"-csearch_path={schema}"} if schema else {}
    return create_engine(
        url.set(drivername="postgresql+psycopg"),
        isolation_level="REPEATABLE READ",
        connect_args=options,
        pool_pre_ping=True,
        hide_parameters=True,
    )


def _sqlite(path: Path) -> Engine:
    path.parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        f"sqlite:///{path}", connect_args={"timeout": 30, "check_same_thread": False}, hide_parameters=True
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _: Any) -> None:
        # The driver would begin a transaction at the first write only, and two reads would see two states.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA cache_size=-65536")  # 64 MiB: an index that fits is written once a transaction
        connection.execute("PRAGMA wal_autocheckpoint=16384")  # pages, 64 MiB

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("sluice_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def is_ours(connection: Connection, path: Path) -> bool:
    """True for a SQLite file of Sluice's, False for an empty one.

    Raises:
        DatabaseCorrupt: the file is damaged or belongs to another program.
    """
    application = connection.exec_driver_sql("PRAGMA application_id").scalar_one()
    empty = connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one() == 0
    if not empty and application != APPLICATION_ID:
        raise DatabaseCorrupt(f"{path} is a database of another program", path=str(path))
    problem = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    if problem != "ok":
        raise DatabaseCorrupt(f"{path} is damaged: {problem}", path=str(path))
    return not empty


def open_database(target: Target, metadata: MetaData, schema_version: int, name: str = "sluice") -> Engine:
    """Opens or creates a SQLite file, or the schema `name` of a PostgreSQL database, with these tables.

    Raises:
        DatabaseCorrupt: it is damaged, belongs to another program, or has another version of the tables.
    """
    engine = connect(target, None if isinstance(target, Path) else name)
    with database_errors(target if isinstance(target, Path) else Path("the database")), writing(engine) as connection:
        if isinstance(target, Path):
            there = is_ours(connection, target)
            version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
        else:
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7165036)")  # one creator at a time
            connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {name}")
            noted = "SELECT obj_description(to_regnamespace(%s), 'pg_namespace')"
            found = connection.exec_driver_sql(noted, (name,)).scalar()
            there, version = found is not None, int(found or 0)
        if there and version != schema_version:
            words = f"has version {version} of its tables, this version of Sluice needs {schema_version}"
            raise DatabaseCorrupt(f"{target} {words}", path=str(target))
        if not there:
            metadata.create_all(connection)
            if isinstance(target, Path):
                connection.exec_driver_sql(f"PRAGMA application_id={APPLICATION_ID}")
                connection.exec_driver_sql(f"PRAGMA user_version={schema_version}")
            else:
                connection.exec_driver_sql(f"COMMENT ON SCHEMA {name} IS '{schema_version}'")
    return engine


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that will write. On SQLite it takes the write lock first, so that what it reads stays true; on
    PostgreSQL the caller locks the row it decides by."""
    with keep_writing(engine) as connection, connection.begin():
        yield connection


def keep_writing(engine: Engine) -> Connection:
    """A connection whose transactions will all write: for who writes all the time. To be closed."""
    options: dict[str, Any] = {"sluice_writes": True}
    if engine.dialect.name == "postgresql":
        options["isolation_level"] = "READ COMMITTED"
    return engine.connect().execution_options(**options)


def insert_unless(connection: Connection, table: Table, row: Mapping[str, Any]) -> None:
    """Inserts a row unless its key is taken: by another process, or by the same thing done before."""
    insertion = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    connection.execute(insertion(table).values(**row).on_conflict_do_nothing())


def ask(connection: Connection, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """A statement straight to the driver, within the connection's transaction: for the few that every use of data waits
    for, where SQLAlchemy's part would be five sixths of the time. Placeholders are `?`; ids are bytes."""
    driver: Any = connection.connection.driver_connection
    if connection.dialect.name != "sqlite":
        query = query.replace("?", "%s")
    cursor = driver.execute(query, values)
    return list(cursor.fetchall()) if cursor.description is not None else []


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
