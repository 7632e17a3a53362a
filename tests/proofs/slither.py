"""`make slither`: static analysis of the contracts; every finding must be answered in docs/security.md.

An answer is a row of the table under "Slither": detector, element, reason. A finding without an answer fails, and so
does an answer without a finding: it would excuse what is to come. `*` answers a detector everywhere.
"""

import json
import os
import re
import subprocess
import sys

from ledger.chain.compile import SETTINGS, reachable_sources
from tests.proofs.tools import tool
from tests.proofs.tree import ROOT

FOLDER = ROOT / "build" / "slither"


def findings() -> list[tuple[str, str, str]]:
    """(detector, element, description) of everything slither has to say about our own contracts."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in ("node_modules", "contracts"):
        (FOLDER / name).unlink(missing_ok=True)
        (FOLDER / name).symlink_to(ROOT / name)
    wanted = ["abi", "metadata", "devdoc", "userdoc", "evm.bytecode", "evm.deployedBytecode", "evm.methodIdentifiers"]
    settings = SETTINGS | {"outputSelection": {"*": {"*": wanted, "": ["ast"]}}}
    sources = {name: source for name, source in reachable_sources(ROOT).items() if "/mocks/" not in name}
    request = {"language": "Solidity", "sources": sources, "settings": settings}
    (FOLDER / "input.json").write_text(json.dumps(request))
    wrapper = FOLDER / "solc"
    wrapper.write_text(f'#!/bin/sh\nexec node "{ROOT / "ledger" / "chain" / "solc.mjs"}" "$@"\n')
    wrapper.chmod(0o755)
    found = FOLDER / "findings.json"
    found.unlink(missing_ok=True)
    command = [str(tool("slither")), "input.json", "--compile-force-framework", "solc-json", "--solc", str(wrapper)]
    command += ["--filter-paths", "openzeppelin", "--json", found.name]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, env=os.environ.copy())
    if not found.exists():
        raise SystemExit(f"slither did not run:\n{done.stderr[-4000:]}")
    report = json.loads(found.read_text())
    if not report["success"]:
        raise SystemExit(f"slither failed: {report['error']}")
    return [
        (one["check"], _element(one["description"]), one["description"].split("\n")[0])
        for one in report["results"]["detectors"]
    ]


def _element(description: str) -> str:
    """`Contract.member` of the first thing a finding is about."""
    found = re.search(r"(\w+)\.(\w+)", description)
    return f"{found[1]}.{found[2]}" if found else description


def answers() -> dict[tuple[str, str], str]:
    """(detector, element) → reason, from docs/security.md."""
    text = (ROOT / "docs" / "security.md").read_text()
    part = text[text.index("## Slither") :]
    rows = re.findall(r"^\| `([\w-]+)` \| `?([\w.*]+)`? \| (.+) \|$", part, re.MULTILINE)
    return {(detector, element): reason for detector, element, reason in rows}


def main() -> int:
    answered, used, bad = answers(), set(), 0
    found = findings()
    for detector, element, description in found:
        key = next((k for k in ((detector, element), (detector, "*")) if k in answered), None)
        if key is None:
            print(f"✗ not answered: {detector} {element}: {description}")
            bad += 1
        else:
            used.add(key)
    for detector, element in answered.keys() - used:
        print(f"✗ answers nothing: {detector} {element}")
        bad += 1
    print(f"{len(found)} findings, {len(answered)} answers, {bad} open")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
