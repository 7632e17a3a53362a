"""`sluice mirror` and `sluice db`, from outside, on both databases."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, func, select, text

from ledger.core.database import Target, connect, writing
from ledger.mirror import queries, schema
from ledger.mirror.follow import catch_up
from ledger.mirror.store import open_mirror, schema_name
from tests.world import World


@pytest.fixture
def sluice(world: World, tmp_path: Path, database: Target, monkeypatch: pytest.MonkeyPatch) -> Any:
    home = tmp_path / "home"
    home.mkdir()
    (home / "deployment.json").write_text(json.dumps(world.deployment.as_json()))
    if isinstance(database, str):
        monkeypatch.setenv("SLUICE_DATABASE", database)

    def run(*words: str) -> Any:
        options = ["--home", str(home), "--rpc", world.chain.url, "--json"]
        command = [sys.executable, "-m", "ledger.cli.main", *options, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, json.loads(done.stdout or done.stderr)

    return run, database if isinstance(database, str) else home / "mirror.db"


def test_a_damaged_mirror_is_found_rebuilt_and_kept_beside(world: World, sluice: Any) -> None:
    run, target = sluice
    world.settle(world.open(5_000_000), 60, (60, 1440, 0, 0))
    engine = open_mirror(target, world.deployment)
    catch_up(engine, world.chain, world.deployment)
    right = queries.contents_digest(engine)[0]
    with writing(engine) as connection:
        connection.execute(delete(schema.settlements))
    engine.dispose()
    code, found = run("mirror", "fsck")
    assert (code, found["error"]["code"]) == (1, "verification_failed")
    for _ in range(2):  # a second time too: what was set aside before gives way
        code, made = run("mirror", "rebuild")
        assert (code, made["digest"]) == (0, right)
    assert run("mirror", "fsck")[0] == 0
    again = open_mirror(target, world.deployment)
    with again.connect() as connection:
        assert connection.execute(select(func.count()).select_from(schema.settlements)).scalar_one() == 1
    again.dispose()
    if isinstance(target, Path):
        assert target.with_name("mirror.old.db").exists()
    else:
        plain = connect(target)
        with plain.connect() as connection:
            names = connection.execute(text("SELECT schema_name FROM information_schema.schemata")).scalars().all()
        plain.dispose()
        assert {schema_name(world.deployment), f"{schema_name(world.deployment)}_old"} <= set(names)


def test_tables_are_made_once(sluice: Any) -> None:
    run, _ = sluice
    first, second = run("db", "upgrade"), run("db", "upgrade")
    assert (first[0], second[0]) == (0, 0)
