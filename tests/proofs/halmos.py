"""`make halmos`: proves the check_ functions of Symbolic.sol for all of their arguments.

Without arguments every check must hold, and must fail again once a line it is about is broken: a check that cannot fail
proves nothing. `--only NAME` runs the checks whose name contains NAME, `--quick` leaves out the broken lines.
Writes build/halmos.json; what halmos prints is in build/halmos/log.txt.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ledger.chain.compile import SETTINGS, compiled_sources, reachable_sources
from tests.proofs.tools import tool
from tests.proofs.tree import ROOT

SUITE = "tests/proofs/Symbolic.sol"
FOLDER = ROOT / "build" / "halmos"

# file, line, what to make of it, the check that must notice
BROKEN = [
    (
        "libraries/Pricing.sol",
        "total += cost / (meter >> 72);",
        "total += cost / (meter >> 72) + 1;",
        "price_is_the_formula",
    ),
    (
        "libraries/Pricing.sol",
        "uint256 free = (meter >> 8) &",
        "uint256 free = (meter >> 9) &",
        "price_is_zero_within_the_free_units",
    ),
    ("libraries/Pricing.sol", "cost += inTier * (tier", "cost = inTier * (tier", "price_never_falls_with_units"),
    (
        "libraries/Pricing.sol",
        "total += cost / (meter >> 72);",
        "total = cost / (meter >> 72);",
        "price_of_two_meters_is_the_sum",
    ),
    ("UsageLedger.sol", "if (paid > reserved) paid = reserved;", "", "pay"),
    ("UsageLedger.sol", "paid = due > before ? due : before;", "paid = due;", "pay"),
    ("UsageLedger.sol", "+= paid - before;", "+= paid;", "pay"),
    ("UsageLedger.sol", "finalPaid <= most,", "finalPaid <= record.amount,", "pay_finally"),
    ("UsageLedger.sol", "released = record.amount - record.paid;", "released = record.amount;", "release"),
    ("UsageLedger.sol", "record.amount = record.paid;", "", "finalize"),
    ("UsageLedger.sol", "return amount < unpaid ? amount : unpaid;", "return amount;", "thaw_and_release"),
    ("UsageLedger.sol", "require(amount <= refundable, RefundTooLarge(id, amount, refundable));", "", "refund"),
    ("UsageLedger.sol", "thaws[id].amount = thawing(id, record);", "", "top_up"),
    ("UsageLedger.sol", "(, uint256 paid) = _pay(record, terms, due);", "uint256 paid = before;", "top_up"),
    ("libraries/Splits.sol", "require(sum == WHOLE,", "require(sum <= WHOLE,", "shares"),
    ("UsageLedger.sol", "/ Splits.WHOLE - sent", "/ Splits.WHOLE + 1 - sent", "shares"),
    ("UsageLedger.sol", "/ Splits.WHOLE - sent[split][token][payee]", "/ Splits.WHOLE", "shares_taken_in_between"),
]


def build(out: Path, contract: str | None, changed: dict[str, str]) -> None:
    """Compiles the suite, or one contract of it, with what is deployed, and writes what forge would.

    `changed` is the text of sources that are to be other than in the checkout.
    """
    sources = reachable_sources(ROOT, [SUITE])
    for name, text in changed.items():
        sources[name] = {"content": text}
    wanted = ["abi", "metadata", "evm.bytecode", "evm.deployedBytecode", "evm.methodIdentifiers"]
    selection = {SUITE: {contract or "*": wanted}, "*": {"": ["ast"]}}
    output = compiled_sources(ROOT, sources, SETTINGS | {"outputSelection": selection})
    for name, made in output["contracts"][SUITE].items():
        for code in (made["evm"]["bytecode"], made["evm"]["deployedBytecode"]):
            code["object"] = "0x" + code["object"]
        artifact = {
            "abi": made["abi"],
            "bytecode": made["evm"]["bytecode"],
            "deployedBytecode": made["evm"]["deployedBytecode"],
            "methodIdentifiers": made["evm"]["methodIdentifiers"],
            "metadata": json.loads(made["metadata"]),
            "ast": output["sources"][SUITE]["ast"],
            "id": output["sources"][SUITE]["id"],
        }
        file = out / Path(SUITE).name / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(artifact))


def checks() -> dict[str, str]:
    """Check → its contract."""
    found, contract = {}, ""
    for line in (ROOT / SUITE).read_text().splitlines():
        if match := re.match(r"(?:abstract )?contract (\w+)", line):
            contract = match[1]
        if match := re.match(r" *function check_(\w+)", line):
            found[match[1]] = contract
    return found


def run(names: dict[str, str], changed: dict[str, str]) -> dict[str, tuple[str, float]]:
    """Check → (what became of it, seconds): "holds", "fails", or why neither is known."""
    contracts = sorted(set(names.values()))
    halmos = tool("halmos")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        build(root / "out", contracts[0] if len(contracts) == 1 else None, changed)
        forge = root / "bin" / "forge"  # halmos insists on calling it; everything is built
        forge.parent.mkdir()
        forge.write_text("#!/bin/sh\n")
        forge.chmod(0o755)
        result = root / "result.json"
        solver = f"{halmos.parent / 'python'} {Path(__file__).with_name('solver.py')}"
        command: list[Any] = [halmos, "--root", root, "--no-status", "--json-output", result]
        command += ["--match-contract", f"^({'|'.join(contracts)})$", "--match-test", f"^check_({'|'.join(names)})\\("]
        command += ["--loop", "4", "--solver-timeout-branching", "1s", "--solver-timeout-assertion", "0"]
        command += ["--solver-command", solver]
        environment = os.environ | {"PATH": f"{forge.parent}:{os.environ['PATH']}"}
        with (FOLDER / "log.txt").open("a") as log:
            subprocess.run([str(part) for part in command], env=environment, stdout=log, stderr=log)
        answers = json.loads(result.read_text())["test_results"] if result.exists() else {}
    became = dict.fromkeys(names, ("not run", 0.0))
    for answer in (one for tests in answers.values() for one in tests):
        name = answer["name"].removeprefix("check_").split("(")[0]
        verdict = {0: "holds", 1: "fails", 2: "time ran out", 4: "every path reverts"}.get(answer["exitcode"], "error")
        if verdict == "holds" and answer["num_bounded_loops"]:
            verdict = "loops not unrolled"
        became[name] = (verdict, round(answer["time"][0], 1))
    return became


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="part of a check's name")
    parser.add_argument("--quick", action="store_true", help="leave out the broken lines")
    options = parser.parse_args()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    python = tool("halmos").parent / "python"
    proved = subprocess.run(
        [python, Path(__file__).with_name("solver.py"), "--facts"], stdout=subprocess.PIPE, text=True
    )
    if proved.returncode:
        return 1
    print(f"{int(proved.stdout)} facts of arithmetic proved")
    every = checks()
    if unbroken := set(every) - {check for *_, check in BROKEN}:
        raise SystemExit(f"no broken line for {', '.join(sorted(unbroken))}")
    good, report = True, []
    for name, (verdict, seconds) in run({n: c for n, c in every.items() if options.only in n}, {}).items():
        print(f"{verdict:20} {seconds:6.1f} s  {name}", flush=True)
        report.append({"check": name, "verdict": verdict, "seconds": seconds})
        good &= verdict == "holds"
    for file, line, instead, check in BROKEN:
        if options.quick or options.only not in check:
            continue
        name = f"contracts/{file}"
        text = (ROOT / name).read_text()
        if line not in text:
            raise SystemExit(f"{name} has no line {line}")
        verdict, seconds = run({check: every[check]}, {name: text.replace(line, instead, 1)})[check]
        print(f"{verdict:20} {seconds:6.1f} s  {check}, with “{instead}” for “{line}”", flush=True)
        report.append({"check": check, "broken": line, "verdict": verdict, "seconds": seconds})
        good &= verdict == "fails"
    (ROOT / "build" / "halmos.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
