"""Opening a mirror: one SQLite file, or one schema of a PostgreSQL database, for each deployment.

Several deployments and chains live in one PostgreSQL database side by side: each has a schema named after its chain
and its ledger. The tables' history is Alembic's (`migrations`); `sluice db upgrade` brings an older mirror up to date.
"""

import logging
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, insert, select

from ledger.chain.artifacts import CORE
from ledger.chain.deploy import Deployment
from ledger.core.database import APPLICATION_ID, Target, connect, database_errors, is_ours, writing
from ledger.core.errors import MirrorError
from ledger.core.ids import ZERO_HASH, Address
from ledger.mirror import digest, schema

MIGRATIONS = Path(__file__).parent / "migrations"


class DeploymentDiffers(MirrorError):
    """The mirror's database belongs to another deployment."""

    code = "deployment_differs"


class SchemaOutdated(MirrorError):
    """The mirror's tables are those of another version of Sluice."""

    code = "schema_outdated"


def followed(deployment: Deployment) -> dict[Address, str]:
    """Address → name of the contracts whose logs are kept; tokens are not ours."""
    return {address: name for address, name in deployment.names().items() if name in CORE}


def schema_name(deployment: Deployment) -> str:
    """The PostgreSQL schema of a deployment's mirror."""
    return f"sluice_{deployment.chain_id}_{deployment.address('UsageLedger')[2:12]}"


def open_mirror(target: Target, deployment: Deployment, schema_: str | None = None) -> Engine:
    """Opens or creates the mirror of this deployment; on a server in its schema, or in another one.

    Raises:
        DeploymentDiffers: the database mirrors another deployment.
        SchemaOutdated: its tables are of another version.
        DatabaseCorrupt: the file is damaged or another program's.
    """
    name = schema_ or schema_name(deployment)
    engine = connect(target, None if isinstance(target, Path) else name)
    try:
        with _named(target):
            _prepare(engine, target, name)
            with writing(engine) as connection:
                found = _revision(connection)
                if found is None:
                    _create(connection, deployment)
                elif found != _newest():
                    raise SchemaOutdated(f"the mirror's tables are {found}, not {_newest()}: run sluice db upgrade")
                known = connection.execute(select(schema.deployment.c.document)).scalar_one()
        if known != deployment.as_json():
            raise DeploymentDiffers(f"{target} mirrors another deployment; use another or remove it")
    except BaseException:
        engine.dispose()
        raise
    return engine


def analyse(engine: Engine) -> None:
    """Lets the database look at how its rows are distributed: without it, it takes the wrong index."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT", sluice_writes=True) as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA analysis_limit=1000")
        connection.exec_driver_sql("ANALYZE")


def upgrade(target: Target, deployment: Deployment) -> tuple[str | None, str]:
    """Brings the tables up to date; (revision before, revision now)."""
    engine = connect(target, None if isinstance(target, Path) else schema_name(deployment))
    try:
        with _named(target):
            _prepare(engine, target, schema_name(deployment))
            with writing(engine) as connection:
                before = _revision(connection)
                if before is None:
                    _create(connection, deployment)
                else:
                    _migrate(connection)
    finally:
        engine.dispose()
    return before, _newest()


def rebuilding(target: str, deployment: Deployment) -> Engine:
    """A new and empty mirror beside the one that is there, in the same database."""
    name = f"{schema_name(deployment)}_rebuilt"
    _in_database(target, f"DROP SCHEMA IF EXISTS {name} CASCADE")
    return open_mirror(target, deployment, name)


def take_over(target: str, deployment: Deployment) -> None:
    """Puts the mirror that was rebuilt in the place of the one that was there, which is kept as `…_old`."""
    name = schema_name(deployment)
    _in_database(
        target,
        f"DROP SCHEMA IF EXISTS {name}_old CASCADE",
        f"ALTER SCHEMA {name} RENAME TO {name}_old",
        f"ALTER SCHEMA {name}_rebuilt RENAME TO {name}",
    )


def _in_database(target: str, *statements: str) -> None:
    """All of them in one transaction."""
    engine = connect(target)
    with writing(engine) as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def _prepare(engine: Engine, target: Target, name: str) -> None:
    """Refuses a file that is not ours; makes the schema on a server."""
    if isinstance(target, Path):
        with engine.connect() as connection:
            is_ours(connection, target)
    else:
        with writing(engine) as connection:
            connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {name}")


def _named(target: Target) -> Any:
    return database_errors(target if isinstance(target, Path) else Path("the database"))


def _create(connection: Connection, deployment: Deployment) -> None:
    _migrate(connection)
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA application_id={APPLICATION_ID}")
    connection.execute(insert(schema.deployment).values(id=1, document=deployment.as_json()))
    start = {
        "id": 1,
        "nonce": 0,
        "number": deployment.block - 1,
        "hash": ZERO_HASH,
        "parent_hash": ZERO_HASH,
        "timestamp": 0,
        "digest": digest.start(deployment),
        "safe": -1,
        "final": -1,
        "final_hash": None,
        "checked": -1,
        "differences": 0,
        "violated": None,
        "writer": "",
        "seen_at": 0,
        "checked_at": 0,
    }
    connection.execute(insert(schema.cursor).values(**start))


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _newest() -> str:
    found = ScriptDirectory.from_config(_config()).get_current_head()
    assert found is not None
    return found


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _migrate(connection: Connection) -> None:
    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
