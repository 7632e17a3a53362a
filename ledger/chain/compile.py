"""Compile the contracts with py-solc-x and keep the artifacts that the package ships.

`python -m ledger.chain.compile` writes `ledger/chain/artifacts/*.json`; with `--check` it writes nothing and fails if
they differ from a fresh build. Run it from the root of a checkout: it needs `contracts/` and `node_modules/`.
"""

import argparse
import json
import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import Any

from ledger.chain.artifacts import CORE
from ledger.core.errors import SluiceError

ARTIFACTS = Path(__file__).parent / "artifacts"
MOCKS = ("DemoYuan", "LogReader")
SIZE_LIMIT = 22_000  # bytes of deployed code; EIP-170 allows 24,576

# The same as in hardhat.config.js: what is tested is what is deployed.
SETTINGS: dict[str, Any] = {
    "viaIR": True,
    "evmVersion": "cancun",
    "optimizer": {"enabled": True, "runs": 200},
    "metadata": {"bytecodeHash": "none"},
    "outputSelection": {
        "*": {"*": ["abi", "evm.bytecode.object", "evm.deployedBytecode", "storageLayout"], "": ["ast"]}
    },
}


class CompilationFailed(SluiceError):
    """The compiler refused the sources, or a contract came out too large."""

    code = "compilation_failed"


def build(root: Path) -> dict[str, str]:
    """Artifact file name → its text, for every contract that is deployed.

    Raises:
        CompilationFailed: the sources do not compile, or a contract exceeds SIZE_LIMIT.
    """
    output = compiled(root)
    artifacts = {}
    for name in (*CORE, *MOCKS):
        source = f"contracts/{'mocks/' if name in MOCKS else ''}{name}.sol"
        found = output["contracts"][source][name]
        deployed = found["evm"]["deployedBytecode"]
        size = len(deployed["object"]) // 2
        if size > SIZE_LIMIT:
            raise CompilationFailed(f"{name} is {size} bytes, more than {SIZE_LIMIT}")
        artifact = {
            "contract": name,
            "compiler": "solc 0.8.37, via IR, cancun, 200 runs",
            "size": size,
            "abi": found["abi"],
            "storage": {v["label"]: int(v["slot"]) for v in found["storageLayout"]["storage"]},
            "bytecode": "0x" + found["evm"]["bytecode"]["object"],
        }
        artifacts[f"{name}.json"] = json.dumps(artifact, indent=1) + "\n"
    return artifacts


def compiled(root: Path) -> Any:
    """The compiler's standard JSON output for every source of ours. Raises CompilationFailed."""
    return compiled_sources(root, reachable_sources(root), SETTINGS)


def compiled_sources(root: Path, sources: dict[str, dict[str, str]], settings: dict[str, Any]) -> Any:
    """The compiler's standard JSON output for these sources. Raises CompilationFailed."""
    import solcx

    with tempfile.TemporaryDirectory() as folder:
        # py-solc-x wants one executable; a two-line script hands the work to node.
        wrapper = Path(folder) / "solc"
        wrapper.write_text(f'#!/bin/sh\nexec node "{Path(__file__).parent / "solc.mjs"}" "$@"\n')
        wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
        before = Path.cwd()
        os.chdir(root)
        try:
            request = {"language": "Solidity", "sources": sources, "settings": settings}
            output: Any = solcx.compile_standard(request, solc_binary=wrapper)
        except solcx.exceptions.SolcError as problem:
            raise CompilationFailed(str(problem)) from problem
        finally:
            os.chdir(before)
    return output


def reachable_sources(root: Path, wanted: list[str] | None = None) -> dict[str, dict[str, str]]:
    """The wanted sources, or all of ours but the tests, and what they import, as standard JSON input wants them."""
    own = [path.relative_to(root).as_posix() for path in sorted((root / "contracts").rglob("*.sol"))]
    if wanted is None:
        wanted = [name for name in own if not name.startswith("contracts/test/")]
    sources = {name: {"content": (root / name).read_text()} for name in {*own, *wanted}}
    library = root / "node_modules" / "@openzeppelin" / "contracts"
    sources |= {
        "@openzeppelin/contracts/" + path.relative_to(library).as_posix(): {"content": path.read_text()}
        for path in sorted(library.rglob("*.sol"))
        if "mocks" not in path.parts and "vendor" not in path.parts
    }
    return _reachable(sources, wanted)


def _reachable(sources: dict[str, dict[str, str]], wanted: list[str]) -> dict[str, dict[str, str]]:
    """The wanted sources and what they import, directly or not: the library has hundreds of files more."""
    import posixpath
    import re

    wanted = list(wanted)
    found: dict[str, dict[str, str]] = {}
    while wanted:
        name = wanted.pop()
        if name in found:
            continue
        found[name] = sources[name]
        for target in re.findall(r'^import\s[^"]*"([^"]+)"', sources[name]["content"], re.MULTILINE):
            relative = target.startswith(".")
            wanted.append(posixpath.normpath(posixpath.join(posixpath.dirname(name), target)) if relative else target)
    return dict(sorted(found.items()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only")
    check: bool = parser.parse_args().check
    fresh = build(Path.cwd())
    stale = [name for name, text in fresh.items() if not _same(ARTIFACTS / name, text)]
    if check and stale:
        print(f"artifacts differ from a fresh build: {', '.join(stale)}; run `make artifacts`", file=sys.stderr)
        return 1
    if not check:
        ARTIFACTS.mkdir(exist_ok=True)
        for name, text in fresh.items():
            (ARTIFACTS / name).write_text(text)
    print(f"{len(fresh)} artifacts {'match' if check else 'written'}")
    return 0


def _same(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text


if __name__ == "__main__":
    sys.exit(main())
