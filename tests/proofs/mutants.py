"""`make mutate`: does the Solidity suite notice when a line of the contracts is wrong?

Every comparison is turned round at its edge, every sum into a difference, every require line left out: one mutant each.
All of them are compiled into one tree at once and none is awake: mutant k wakes where the block's base fee is k, which
the test runner sets. So each mutant costs one run of the suite and no compilation, and one that does not compile cannot
be counted as noticed. A fixed seed draws the sample; survivors are listed, and answered in docs/security.md.

`python -m tests.proofs.mutants [--sample N] [--seed S] [--only K]` writes build/mutants.json; exits 1 below 90 %.
"""

import argparse
import json
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.progress import Progress

from ledger.chain.compile import compiled
from tests.proofs.tree import ROOT, hardhat, lay

# Two trees: one with the mutants, built as the contracts are, and the tests that call libraries; one with all other
# tests, built the quick way against the contracts as they are, whose artifacts those with the mutants then replace.
PLANTED, SUITE = ROOT / "build" / "mutants" / "planted", ROOT / "build" / "mutants" / "suite"
DIRECT = ("Libraries.t.sol", "Vectors.t.sol")
FLIPPED = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==", "+": "-", "-": "+", "*": "/", "/": "*"}
NAMES = {"<": "lt", "<=": "le", ">": "gt", ">=": "ge", "==": "eq", "!=": "ne"}
NAMES |= {"+": "add", "-": "sub", "*": "mul", "/": "div"}
WIDTHS = (8, 16, 32, 40, 64, 96, 128, 256)
DEADLINE = 240  # seconds: a mutant that never ends is noticed
GOAL = 0.9

Node = dict[str, Any]


@dataclass(frozen=True)
class Mutant:
    """One change: where, and what stands there instead."""

    number: int
    file: str
    line: int
    change: str
    code: str


# ------------------------------------------------------------------------------------------------------ the tree


def helper() -> str:
    """The library through which every mutated operation goes."""
    body = ["// SPDX-License-Identifier: Apache-2.0", "pragma solidity 0.8.37;", "library Mutant {"]
    body.append("function on(uint256 k) internal view returns (bool) { return block.basefee == k; }")
    for operator, name in NAMES.items():
        other = FLIPPED[operator]
        if name in ("eq", "ne"):
            for kind, suffix in (("uint256", ""), ("address", "A"), ("bytes32", "B"), ("bool", "Z")):
                body.append(
                    f"function {name}{suffix}(uint256 k, {kind} a, {kind} b) internal view returns (bool)"
                    f" {{ return on(k) ? a {other} b : a {operator} b; }}"
                )
        elif name in ("add", "sub", "mul", "div"):
            body.extend(
                f"function {name}{width}(uint256 k, uint{width} a, uint{width} b) internal view"
                f" returns (uint{width}) {{ return on(k) ? a {other} b : a {operator} b; }}"
                for width in WIDTHS
            )
        else:
            body.append(
                f"function {name}(uint256 k, uint256 a, uint256 b) internal view returns (bool)"
                f" {{ return on(k) ? a {other} b : a {operator} b; }}"
            )
    return "\n".join([*body, "}\n"])


def nodes(tree: Any) -> Iterator[Node]:
    """Every node of an AST but those inside constants, whose values are no code."""
    if isinstance(tree, dict):
        if tree.get("nodeType") == "VariableDeclaration" and tree.get("constant"):
            return
        if tree.get("nodeType") == "InlineAssembly":
            return
        if "nodeType" in tree:
            yield tree
        for value in tree.values():
            yield from nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from nodes(value)


class File:
    """A source and what is to be changed in it. Offsets are in bytes, as the compiler counts."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text.encode()
        self.before: dict[int, list[str]] = {}
        self.cuts: list[tuple[int, int, str]] = []

    def wrap(self, start: int, end: int, operator: tuple[int, int], head: str, tail: str = ")") -> None:
        """Puts `head` before the left operand, a comma in place of the operator, `tail` after the right one."""
        self.before.setdefault(start, []).append(head)
        self.cuts.append((*operator, ", "))
        self.before.setdefault(end, []).insert(0, tail)

    def render(self) -> str:
        out, at = [], 0
        edits: list[tuple[int, int, str]] = [*self.cuts]
        # Heads of outer operations come before those of inner ones, tails of inner ones before those of outer ones:
        # both are the order in which the tree was walked.
        edits += [(place, place, "".join(pieces)) for place, pieces in self.before.items()]
        for start, end, piece in sorted(edits, key=lambda e: (e[0], e[1])):
            out.append(self.text[at:start].decode())
            out.append(piece)
            at = end
        out.append(self.text[at:].decode())
        return "".join(out)


def span(node: Node) -> tuple[int, int]:
    start, length, _ = (int(part) for part in node["src"].split(":"))
    return start, start + length


def casts(kind: str) -> tuple[str, str, str] | None:
    """(suffix of the helper, cast before, cast after) for operands of a type; None if it is left alone."""
    if re.fullmatch(r"uint\d+", kind) or kind.startswith("int_const"):
        return "", "", ""
    if kind.startswith("enum"):
        return "", "uint256(", ")"
    if kind == "bool":
        return "Z", "", ""
    if kind.startswith("address"):
        return "A", "", ""
    if re.fullmatch(r"bytes\d+", kind):
        return "B", f"bytes32({kind}(", "))"
    return None


def mutate(file: File, ast: Node, first: int) -> list[Mutant]:
    """Plants every mutant of one file, numbered from `first`."""
    found: list[Mutant] = []

    def plant(place: int, change: str) -> int:
        line = file.text[:place].count(b"\n") + 1
        code = file.text.split(b"\n")[line - 1].decode().strip()
        found.append(Mutant(first + len(found), file.name, line, change, code))
        return found[-1].number

    for node in nodes(ast):
        kind = node["nodeType"]
        if kind == "BinaryOperation" and node["operator"] in FLIPPED:
            operator = node["operator"]
            common = node["commonType"]["typeString"]
            (start, left), (right, end) = span(node["leftExpression"]), span(node["rightExpression"])
            outer = span(node)
            between = file.text[left:right]
            at = left + between.index(operator.encode())
            # Brackets round an operand are outside its span.
            cut = (at, at + len(operator))
            if operator in "+-*/":
                width = re.fullmatch(r"uint(\d+)", common)
                if width is None:
                    continue
                number = plant(at, f"{operator} → {FLIPPED[operator]}")
                file.wrap(outer[0], outer[1], cut, f"Mutant.{NAMES[operator]}{width[1]}({number}, ")
            else:
                how = casts(common)
                if how is None or (how[0] and operator not in ("==", "!=")):
                    continue
                number = plant(at, f"{operator} → {FLIPPED[operator]}")
                suffix, before, after = how
                file.before.setdefault(outer[0], []).append(f"Mutant.{NAMES[operator]}{suffix}({number}, {before}")
                file.cuts.append((*cut, f"{after}, {before}"))
                file.before.setdefault(outer[1], []).insert(0, f"{after})")
        elif kind == "Assignment" and node["operator"] in ("+=", "-="):
            operator = node["operator"]
            common = node["leftHandSide"]["typeDescriptions"]["typeString"]
            width = re.fullmatch(r"uint(\d+)", common)
            if width is None:
                continue
            (start, left), (right, end) = span(node["leftHandSide"]), span(node["rightHandSide"])
            at = left + file.text[left:right].index(operator.encode())
            number = plant(at, f"{operator} → {FLIPPED[operator[0]]}=")
            target = file.text[start:left].decode()
            name = NAMES[operator[0]]
            file.cuts.append((at, at + 2, f"= Mutant.{name}{width[1]}({number}, {target}, "))
            file.before.setdefault(end, []).insert(0, ")")
        elif kind == "ExpressionStatement" and node["expression"]["nodeType"] == "FunctionCall":
            called = node["expression"]["expression"]
            if called.get("name") == "require":
                start, _ = span(node)
                number = plant(start, "require left out")
                file.before.setdefault(start, []).insert(0, f"if (!Mutant.on({number})) ")
    return found


def plant_all() -> list[Mutant]:
    """Lays both trees, with every mutant in the first."""
    lay(SUITE, lambda name: name not in DIRECT)
    lay(PLANTED, lambda name: name in DIRECT)
    for tree in (SUITE, PLANTED):
        config = tree / "hardhat.config.js"
        fee = "blockBaseFeePerGas: BigInt(process.env.MUTANT ?? 0), "
        text = config.read_text().replace("solidity: {\n      fuzz", f"solidity: {{ {fee}\n      fuzz")
        assert fee in text
        config.write_text(text)
    (PLANTED / "contracts" / "Mutant.sol").write_text(helper())
    mutants: list[Mutant] = []
    for name, source in sorted(compiled(ROOT)["sources"].items()):
        parts = Path(name).parts
        if parts[0] != "contracts" or parts[1] in ("mocks", "interfaces"):
            continue
        file = File(name, (ROOT / name).read_text())
        planted = mutate(file, source["ast"], len(mutants) + 1)
        mutants += planted
        if planted:
            up = "./" if len(parts) == 2 else "../"
            text = file.render()
            at = re.search(r"pragma solidity [^;]+;\n", text)
            assert at is not None
            line = f'import {{Mutant}} from "{up}Mutant.sol";\n'
            (PLANTED / name).write_text(text[: at.end()] + line + text[at.end() :])
    # A mutant asks for the base fee, which no pure function may.
    for path in (PLANTED / "contracts").rglob("*.sol"):
        path.write_text(re.sub(r"\bpure\b", "view", path.read_text()))
    return mutants


def build() -> None:
    """Compiles both trees and puts the mutants' artifacts where the suite deploys from."""
    for tree in (PLANTED, SUITE):
        for command in (["build", "--no-tests"], ["build"]):
            done = hardhat(tree, command, awake(0))
            if done.returncode:
                raise SystemExit(f"{tree.name} does not compile:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    made = Path("build") / "hardhat" / "artifacts" / "contracts"
    for artifact in (PLANTED / made).rglob("*.json"):
        place = SUITE / made / artifact.relative_to(PLANTED / made)
        if place.exists() and "test" not in place.parts:
            shutil.copy(artifact, place)


# ------------------------------------------------------------------------------------------------------- the runs


def awake(number: int) -> dict[str, str]:
    return {"MUTANT": str(number), "FUZZ_RUNS": "16", "INVARIANT_RUNS": "2"}


def run(number: int) -> tuple[bool, str]:
    """(noticed, first failing test) of one mutant; number 0 wakes none."""
    for tree in (PLANTED, SUITE):
        try:
            done = hardhat(tree, ["test", "solidity", "--no-compile"], awake(number), DEADLINE)
        except subprocess.TimeoutExpired:
            return True, "it never ended"
        failed = re.search(r"^\s+1\) (\S+)", done.stdout, re.MULTILINE)
        if done.returncode and failed is None:
            raise SystemExit(f"the suite did not run:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        if failed:
            return True, failed[1]
    return False, ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=320)
    parser.add_argument("--seed", type=int, default=20261123)
    parser.add_argument("--only", type=int, help="run one mutant")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    began = time.monotonic()
    mutants = plant_all()
    print(f"{len(mutants)} mutants planted; compiling them all ...")
    build()
    noticed, what = run(0)
    if noticed:
        print(f"the suite fails with every mutant asleep: {what}", file=sys.stderr)
        return 2
    sample = random.Random(options.seed).sample(mutants, min(options.sample, len(mutants)))
    if options.only:
        sample = [m for m in mutants if m.number == options.only]
    results: dict[int, tuple[bool, str]] = {}
    with ThreadPoolExecutor(options.workers) as pool, Progress() as progress:
        task = progress.add_task("mutants", total=len(sample))
        for mutant, result in zip(sample, pool.map(lambda m: run(m.number), sample), strict=True):
            results[mutant.number] = result
            if not result[0]:
                progress.console.print(f"survived  {mutant.file}:{mutant.line}  {mutant.change}  {mutant.code}")
            progress.advance(task)
    survivors = sorted((m for m in sample if not results[m.number][0]), key=lambda m: (m.file, m.line))
    killed = len(sample) - len(survivors)
    report = {
        "planted": len(mutants),
        "sampled": len(sample),
        "seed": options.seed,
        "noticed": killed,
        "share": round(killed / len(sample), 4),
        "survivors": [asdict(m) for m in survivors],
        "noticedBy": {str(m.number): results[m.number][1] for m in sample if results[m.number][0]},
    }
    (ROOT / "build" / "mutants.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    print(f"{killed} of {len(sample)} noticed ({killed / len(sample):.1%}), {time.monotonic() - began:.0f} s")
    return int(killed / len(sample) < GOAL)


if __name__ == "__main__":
    sys.exit(main())
