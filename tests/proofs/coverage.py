"""`make coverage`: which lines of the contracts does the Solidity suite run?

Built and run in a tree of its own (build/coverage), because what is built there counts its own lines. Few fuzz runs are
enough: coverage asks whether a line runs at all. Mocks and the tests' own helpers are left out (hardhat.config.js).
Exits 1 below 98 % of the lines.
"""

import sys

from tests.proofs.tree import ROOT, hardhat, lay

TREE = ROOT / "build" / "coverage"
GOAL = 0.98
BARE = {"contracts/Forwarder.sol"}  # a constructor without a line of its own


def lines() -> dict[str, dict[int, int]]:
    """File → line → how often it ran; from the report in lcov's form."""
    found: dict[str, dict[int, int]] = {}
    for line in (TREE / "coverage" / "lcov.info").read_text().splitlines():
        what, _, value = line.partition(":")
        if what == "SF":
            file = found.setdefault(value, {})
        elif what == "DA":
            number, count = value.split(",")[:2]
            file[int(number)] = int(count)
    return found


def main() -> int:
    lay(TREE)
    print("building and running the Solidity suite with counters ...", flush=True)
    done = hardhat(TREE, ["test", "solidity", "--coverage"], {"FUZZ_RUNS": "16", "INVARIANT_RUNS": "2"})
    if done.returncode:
        print(done.stdout[-4000:], done.stderr[-4000:], file=sys.stderr)
        return 2
    found = lines()
    every = {path.relative_to(ROOT).as_posix() for path in (ROOT / "contracts").glob("*.sol")}
    if missing := every - found.keys() - BARE:
        print(f"not counted: {', '.join(sorted(missing))}", file=sys.stderr)
        return 2
    for name, counts in sorted(found.items()):
        never = [line for line, count in counts.items() if count == 0]
        print(f"{name:44} {len(counts) - len(never):4} of {len(counts):4}  {'never: ' if never else ''}", *never)
    total = sum(len(counts) for counts in found.values())
    run = sum(1 for counts in found.values() for count in counts.values() if count)
    print(f"{run} of {total} lines ({run / total:.2%})")
    return int(run / total < GOAL)


if __name__ == "__main__":
    sys.exit(main())
