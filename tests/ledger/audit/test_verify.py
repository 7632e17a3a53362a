"""The verifier: holds for what was exported, and names what was changed, however it was changed."""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ledger.audit import bundle as form
from ledger.audit.verify import main, verify
from ledger.core.hashing import canonical_json
from tests.exchange import Exchange


def rehash(folder: Path) -> None:
    """What somebody does who can change the manifests too."""
    for algorithm in form.MANIFESTS:
        text = form._manifest(folder, algorithm, form._payload(folder))
        (folder / f"manifest-{algorithm}.txt").write_text(text)
    (folder / form.TAG_MANIFEST).write_text(form._manifest(folder, "sha256", form._tags(folder)))


def escrowed(folder: Path) -> Path:
    for path in sorted((folder / "data/authorizations").iterdir()):
        if json.loads((path / "authorization.json").read_text())["ledger"] == "UsageLedger":
            return path
    raise AssertionError


def edit_line(path: Path, number: int, change: Callable[[Any], None]) -> None:
    lines = path.read_bytes().splitlines()
    record = json.loads(lines[number])
    change(record)
    lines[number] = canonical_json(record)
    path.write_bytes(b"".join(line + b"\n" for line in lines))


def edit(path: Path, change: Callable[[Any], None]) -> None:
    record = json.loads(path.read_bytes())
    change(record)
    path.write_bytes(canonical_json(record) + b"\n")


def test_a_bundle_holds_and_says_what_was_checked(bundle: Path) -> None:
    report = verify(bundle)
    assert report.faults == []
    assert report.checked["authorizations"] == report.checked["bills"] == 2
    assert report.checked["leaves"] == 25
    assert (report.checked["heads"], report.checked["settlements"]) == (3, 3)


def test_the_same_range_gives_the_same_bytes(running: Exchange, bundle: Path, tmp_path: Path) -> None:
    from ledger.audit.export import export
    from ledger.core.ids import Hash32

    wanted = [Hash32(p.name) for p in (bundle / "data/authorizations").iterdir()]
    again = tmp_path / "again"
    with running.mirror.connect() as mirror, running.usage.connect() as usage:
        export(again, mirror, usage, running.world.deployment.as_json(), sorted(wanted))
    files = sorted(p.relative_to(bundle) for p in bundle.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    assert all((bundle / f).read_bytes() == (again / f).read_bytes() for f in files)


def test_one_changed_byte_anywhere_is_found_and_its_file_named(bundle: Path, tmp_path: Path) -> None:
    rng = random.Random(7)
    files = sorted(p.relative_to(bundle) for p in bundle.rglob("*") if p.is_file())
    assert len(files) >= 20
    for file in files:
        copy = tmp_path / "changed"
        shutil.copytree(bundle, copy)
        content = bytearray((copy / file).read_bytes())
        if not content:
            content = bytearray(b"x")
        else:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        (copy / file).write_bytes(content)
        faults = verify(copy).faults
        named = {fault.file for fault in faults}
        manifest = file.name.startswith(("manifest", "tagmanifest"))
        assert file.as_posix() in named or (manifest and faults), file
        shutil.rmtree(copy)


CHANGES: dict[str, tuple[Callable[[Path], object], str, str, str]] = {
    "a leaf's units": (
        lambda p: edit_line(p / "leaves.jsonl", 5, lambda r: r["leaf"].update(units=["2", "6", "0", "0"])),
        "leaves.jsonl",
        "leaf 5",
        "cumUnits",
    ),
    "a leaf's payload": (
        lambda p: edit_line(p / "leaves.jsonl", 5, lambda r: r["payload"].update(bytes=1)),
        "leaves.jsonl",
        "leaf 5",
        "payload",
    ),
    "a request hash": (
        lambda p: edit_line(p / "leaves.jsonl", 5, lambda r: r.update(requestHash="0x" + "00" * 32)),
        "leaves.jsonl",
        "leaf 5",
        "requestHash",
    ),
    "a leaf's signature": (
        lambda p: edit_line(p / "leaves.jsonl", 5, lambda r: r.update(signature="0x" + "11" * 64 + "1b")),
        "leaves.jsonl",
        "leaf 5",
        "signature",
    ),
    "an extra member in a leaf": (
        lambda p: edit_line(p / "leaves.jsonl", 5, lambda r: r.update(note="x")),
        "leaves.jsonl",
        "leaf 5",
        "",
    ),
    "a leaf left out": (
        lambda p: (p / "leaves.jsonl").write_bytes(b"".join((p / "leaves.jsonl").read_bytes().splitlines(True)[:-1])),
        "heads.jsonl",
        "",
        "size",
    ),
    "a head's root": (
        lambda p: edit_line(p / "heads.jsonl", 0, lambda r: r["head"].update(root="0x" + "00" * 32)),
        "heads.jsonl",
        "",
        "root",
    ),
    "a head's consumer signature": (
        lambda p: edit_line(p / "heads.jsonl", 0, lambda r: r.update(consumerSignature=r["providerSignature"])),
        "heads.jsonl",
        "",
        "consumerSignature",
    ),
    "what was paid": (
        lambda p: edit_line(p / "settlements.jsonl", 0, lambda r: r.update(paid="1")),
        "settlements.jsonl",
        "line 1",
        "paid",
    ),
    "an event's data": (
        lambda p: edit_line(
            p / "events.jsonl",
            1,
            lambda r: r.update(data=r["data"][: 2 + 64 * 8] + "f" * 64 * 3 + r["data"][2 + 64 * 11 :]),
        ),
        "settlements.jsonl",
        "line 1",
        "due",
    ),
    "an event left out": (
        lambda p: (p / "events.jsonl").write_bytes(
            b"".join(line for i, line in enumerate((p / "events.jsonl").read_bytes().splitlines(True)) if i != 1)
        ),
        "settlements.jsonl",
        "",
        "",
    ),
    "all events left out": (lambda p: (p / "events.jsonl").write_bytes(b""), "settlements.jsonl", "", ""),
    "the reason of the end": (
        lambda p: edit(p / "authorization.json", lambda r: r.update(reason=0)),
        "authorization.json",
        "",
        "reason",
    ),
    "the terms": (
        lambda p: edit(p / "authorization.json", lambda r: r["terms"].update(validUntil=r["terms"]["validUntil"] + 1)),
        "authorization.json",
        "",
        "terms",
    ),
    "a bill's line": (
        lambda p: edit(p / "bill.json", lambda r: r["lines"][1].update(amount="1")),
        "bill.json",
        "line 2",
        "",
    ),
    "a bill's paid": (lambda p: edit(p / "bill.json", lambda r: r.update(paid="1")), "bill.json", "", "paid"),
    "a bill's head": (
        lambda p: edit(p / "bill.json", lambda r: r["head"].update(asOf=1)),
        "bill.json",
        "",
        "head",
    ),
    "an extra member in a bill": (lambda p: edit(p / "bill.json", lambda r: r.update(tip="1")), "bill.json", "", "tip"),
    "a bill's split": (
        lambda p: edit(p / "bill.json", lambda r: r["split"].update({next(iter(r["split"])): "1"})),
        "bill.json",
        "",
        "split",
    ),
    "white space": (
        lambda p: (p / "bill.json").write_bytes((p / "bill.json").read_bytes().replace(b",", b", ", 1)),
        "bill.json",
        "",
        "",
    ),
    "a file that does not belong": (lambda p: (p / "extra.json").write_bytes(b"{}\n"), "extra.json", "", ""),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_is_named_even_when_the_manifests_were_made_anew(bundle: Path, what: str) -> None:
    change, file, record, name = CHANGES[what]
    target = escrowed(bundle)
    change(target)
    rehash(bundle)
    assert form.check(bundle) == []
    faults = verify(bundle).faults
    found = [f for f in faults if f.file.endswith(f"{target.name}/{file}")]
    assert any(f.record.startswith(record) and (not name or f.field == name) for f in found), faults


@pytest.mark.parametrize("what", ["no authorizations", "renamed", "symlink", "directory", "deep", "empty", "no bill"])
def test_a_bundle_that_is_not_whole_does_not_hold(bundle: Path, what: str) -> None:
    target = escrowed(bundle)
    if what == "no authorizations":
        shutil.rmtree(bundle / "data/authorizations")
    elif what == "renamed":
        target.rename(target.with_name("1" + target.name[1:]))
    elif what == "symlink":
        (bundle / "data/link").symlink_to("/nowhere")
    elif what == "directory":
        (bundle / "more").mkdir()
    elif what == "deep":
        (target / "leaves.jsonl").write_bytes(b"[" * 200_000)
    elif what == "empty":
        (target / "leaves.jsonl").write_bytes(b"")
    elif what == "no bill":
        (target / "bill.json").unlink()
    if what not in ("symlink", "directory"):
        rehash(bundle)
    assert verify(bundle).faults


def test_an_erased_payload_changes_nothing_else(bundle: Path) -> None:
    """Erasure: salt and payload go, the leaf and every proof stay."""
    target = escrowed(bundle)
    edit_line(target / "leaves.jsonl", 3, lambda r: r.update(salt=None, payload=None))
    rehash(bundle)
    report = verify(bundle)
    assert report.faults == []
    assert report.checked["leaves whose payload was erased"] == 1


def test_the_verifier_runs_alone_with_nothing_of_the_rest(bundle: Path) -> None:
    """In its own process, and without the floors that need a node or a database."""
    code = (
        "import sys; from ledger.audit.verify import main; status = main([sys.argv[1], '--json']); "
        "bad = [m for m in sys.modules if m.split('.')[0] in ('web3', 'sqlalchemy', 'sqlite3', 'httpx', 'fastapi', "
        "'eth_account') or m in ('ledger.chain', 'ledger.mirror', 'ledger.metering', 'ledger.core.database')]; "
        "sys.exit(9 if bad else status)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(bundle)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["holds"] is True


def test_exit_codes(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(bundle)]) == 0
    assert "HOLDS" in capsys.readouterr().out
    assert main([str(tmp_path / "nowhere")]) == 2
    edit(escrowed(bundle) / "bill.json", lambda r: r.update(due="1"))
    assert main([str(bundle)]) == 1
    assert "DOES NOT HOLD" in capsys.readouterr().out
