"""The form of an audit bundle: a BagIt 1.0 folder (RFC 8493) whose every byte is accounted for.

`data/` holds the records; `manifest-sha256.txt` and `manifest-sm3.txt` their digests; `tagmanifest-sha256.txt` the
digests of everything else but itself, which has only one form for given contents. Writing is deterministic: records
in, bytes out, no clock.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ledger.core.errors import InputInvalid, VerificationFailed
from ledger.core.hashing import canonical_json

BAGIT = "BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
MANIFESTS = ("sha256", "sm3")
TAG_MANIFEST = "tagmanifest-sha256.txt"
TOP = {"data", "bagit.txt", "bag-info.txt", TAG_MANIFEST, *(f"manifest-{a}.txt" for a in MANIFESTS)}


class FileChanged(VerificationFailed):
    """A file of the bundle is not the one that was written; `details` name it."""

    code = "file_changed"


def write(folder: Path, records: dict[str, bytes], info: dict[str, str]) -> None:
    """Writes records (path below `data/` → bytes) as a bundle. Raises InputInvalid if the folder is not empty."""
    if folder.exists() and any(folder.iterdir()):
        raise InputInvalid(f"{folder} is not empty; give a new folder", field="folder")
    for name, content in records.items():
        path = folder / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    tags = {"bagit.txt": BAGIT, "bag-info.txt": "".join(f"{k}: {v}\n" for k, v in info.items())}
    for algorithm in MANIFESTS:
        tags[f"manifest-{algorithm}.txt"] = _manifest(folder, algorithm, _payload(folder))
    for name, text in tags.items():
        (folder / name).write_bytes(text.encode())
    (folder / TAG_MANIFEST).write_bytes(_manifest(folder, "sha256", _tags(folder)).encode())


def check(folder: Path, each: Callable[[str], None] = lambda _: None) -> list[FileChanged]:
    """Every file that is changed, missing or too many; empty if the bundle is as it was written.

    The manifests are compared as text with what the files give: there is no byte in them that does not count.
    """
    problems: list[FileChanged] = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            problems.append(FileChanged(f"{name} is neither a file nor a folder", file=name))
        elif "/" not in name and name not in TOP:
            problems.append(FileChanged(f"{name} does not belong into a bundle", file=name))
    if problems:
        return problems
    if not (folder / TAG_MANIFEST).is_file():
        return [FileChanged(f"{folder} is not an audit bundle: {TAG_MANIFEST} is missing", file=TAG_MANIFEST)]
    if not (folder / "bagit.txt").is_file() or (folder / "bagit.txt").read_bytes() != BAGIT.encode():
        problems.append(FileChanged("bagit.txt is changed or missing", file="bagit.txt"))
    expected = {TAG_MANIFEST: ("sha256", _tags(folder))}
    expected |= {f"manifest-{algorithm}.txt": (algorithm, _payload(folder)) for algorithm in MANIFESTS}
    for name, (algorithm, files) in expected.items():
        each(name)
        path = folder / name
        if not path.is_file():
            problems.append(FileChanged(f"{name} is missing", file=name))
            continue
        computed = _manifest(folder, algorithm, files)
        written = path.read_bytes().decode(errors="replace")
        differing = set(written.splitlines(True)) ^ set(computed.splitlines(True))
        named = {line.split("  ", 1)[-1].strip() for line in differing}
        for file in sorted(named):
            state = "is changed" if file in files else "is missing or misnamed"
            problems.append(FileChanged(f"{file} {state}: {name} does not match", file=file))
        if not named and written != computed:
            problems.append(FileChanged(f"{name} is changed", file=name))
    return problems


def jsonl(records: Iterable[Any]) -> bytes:
    """One RFC 8785 object a line."""
    return b"".join(canonical_json(record) + b"\n" for record in records)


def _payload(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in (folder / "data").rglob("*") if p.is_file())


def _tags(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name not in ("data", TAG_MANIFEST))


def _manifest(folder: Path, algorithm: str, names: list[str]) -> str:
    lines = []
    for name in names:
        digest = hashlib.new(algorithm)
        with (folder / name).open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        lines.append(f"{digest.hexdigest()}  {name}\n")
    return "".join(lines)
