"""The solver behind halmos: yices and cvc5 side by side, with facts about products and quotients.

halmos treats the product and the quotient of two unknowns as unknown functions first, and only if that is not enough
bit by bit, which takes forever at 256 bits. So facts that hold of every product and quotient are added to its query.
A fact only removes what is not arithmetic, so nothing false can be proved by it; `--facts` has z3 prove each kind of
them with the real operations on words of 8 bits. cvc5 reads bit vectors as integers; models are always those of yices.

`python solver.py QUERY.smt2` answers as a solver would; run with the Python of the proving environment.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import z3

SECONDS = 240  # for one query
WIDTH = 256
PRODUCT, QUOTIENT = "f_evm_bvmul_256", "f_evm_bvudiv_256"


def facts(products: list[Any], quotients: list[Any], constants: list[Any], width: int) -> Iterator[Any]:
    """What holds of x · y mod 2^width and of x / s, floored, zero if s is zero (the EVM's)."""

    def below(x: Any, bits: int) -> Any:
        return z3.ULT(x, z3.BitVecVal(1 << bits, width))

    def sides(product: Any) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
        x, y = product.children()
        return (x, y), (y, x)

    for p in products:
        x, y = p.children()
        yield p == p.decl()(y, x)
        for x, y in sides(p):
            yield z3.Implies(x == 0, p == 0)
            yield z3.Implies(z3.And(below(x, width // 4), below(y, width // 2)), below(p, width // 4 + width // 2))
            for k in constants:
                yield z3.Implies(x == k, p == k * y)
    for p, q in combinations(products, 2):  # a product rises with its factor, unless it overflows
        for x, y in sides(p):
            for u, v in sides(q):
                if y.eq(v):
                    fit = z3.And(*(below(factor, width // 2) for factor in (x, u, y)))
                    yield z3.Implies(z3.And(fit, z3.ULE(x, u)), z3.ULE(p, q))
                    yield z3.Implies(z3.And(fit, z3.ULE(u, x)), z3.ULE(q, p))
    for p, q, r in combinations(products, 3):  # x · a + x · b + x · c = x · k if a + b + c = k
        for x, a in sides(p):
            for b in [b for y, b in sides(q) if y.eq(x)][:1]:
                for c in [c for y, c in sides(r) if y.eq(x)][:1]:
                    for k in constants:
                        yield z3.Implies(a + b + c == k, p + q + r == k * x)
    for p, q in combinations(quotients, 2):  # a quotient rises with what is divided
        (x, s), (u, t) = p.children(), q.children()
        if s.eq(t):
            yield z3.Implies(z3.ULE(x, u), z3.ULE(p, q))
            yield z3.Implies(z3.ULE(u, x), z3.ULE(q, p))
    for q in quotients:
        x, s = q.children()
        if z3.is_bv_value(s) and s.as_long():  # q · s <= x < q · s + s, and q · s does not overflow
            most = z3.BitVecVal((2**width - 1) // s.as_long(), width)
            yield z3.And(z3.ULE(q, most), z3.ULE(s * q, x), z3.ULT(x - s * q, s))


def prove_facts() -> int:
    """z3 proves every kind of fact with the real operations, on words of 8 bits; returns how many."""
    width = 8
    product = z3.Function(PRODUCT, *[z3.BitVecSort(width)] * 3)
    quotient = z3.Function(QUOTIENT, *[z3.BitVecSort(width)] * 3)
    x, a, b, c, s = z3.BitVecs("x a b c s", width)
    constants = [z3.BitVecVal(k, width) for k in (7, 10)]
    products = [product(x, a), product(b, x), product(x, c)]
    quotients = [quotient(a, s), quotient(b, s), quotient(a, constants[0])]
    v, w = z3.Var(0, x.sort()), z3.Var(1, x.sort())
    real = [(product, v * w), (quotient, z3.If(w == 0, z3.BitVecVal(0, width), z3.UDiv(v, w)))]
    count = 0
    for fact in facts(products, quotients, constants, width):
        solver = z3.Solver()
        solver.add(z3.Not(z3.substitute_funs(fact, *real)))
        if solver.check() != z3.unsat:
            raise SystemExit(f"not a fact: {fact}")
        count += 1
    return count


def with_facts(query: str) -> str:
    """The query with the facts about its products and quotients in it."""
    found: dict[int, Any] = {}
    todo = list(z3.parse_smt2_string(query))
    while todo:
        term = todo.pop()
        if term.get_id() not in found:
            found[term.get_id()] = term
            todo.extend(term.children())
    named: dict[str, list[Any]] = {PRODUCT: [], QUOTIENT: [], "bvmul": []}
    for term in found.values():
        if z3.is_app(term) and term.decl().name() in named:
            named[term.decl().name()].append(term)
    # Numbers that something is multiplied with or divided by; not the -1 of a subtraction.
    numbers = {
        child.as_long()
        for term in named[QUOTIENT] + named["bvmul"]
        for child in term.children()
        if z3.is_bv_value(child) and term.size() == WIDTH and child.as_long() < 1 << WIDTH // 2
    }
    constants = [z3.BitVecVal(k, WIDTH) for k in sorted(numbers)]
    added = "".join(f"(assert {f.sexpr()})\n" for f in facts(named[PRODUCT], named[QUOTIENT], constants, WIDTH))
    return query.replace("(check-sat)", added + "(check-sat)")


def solve(path: Path) -> str:
    """The answer of whichever solver is first; "unknown" after SECONDS."""
    query = path.read_text()
    if f"declare-fun {PRODUCT}" in query or f"declare-fun {QUOTIENT}" in query:
        path = path.with_suffix(".facts.smt2")
        path.write_text(with_facts(query))
    yices = shutil.which("yices-smt2", path=str(Path(sys.executable).parent))
    if yices is None:
        raise SystemExit("yices-smt2 is missing beside this Python")
    asked = {
        "yices": [yices, "--smt2-model-format", "--bvconst-in-decimal", str(path)],
        "cvc5": [sys.executable, __file__, "--cvc5", str(path)],
    }
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    running = {name: subprocess.Popen(command, text=True, **pipes) for name, command in asked.items()}
    answer, end = "unknown", time.monotonic() + SECONDS
    while running and answer == "unknown" and time.monotonic() < end:
        for name, process in list(running.items()):
            if process.poll() is not None:
                said = process.communicate()[0]
                del running[name]
                if said.startswith("unsat") or (said.startswith("sat") and name == "yices"):
                    answer = said
                    break
        time.sleep(0.02)
    for process in running.values():
        process.kill()
        process.wait()
    return answer


def cvc5(path: str) -> None:
    """Bit vectors as integers: products and sums of amounts are what they look like."""
    import cvc5 as library

    solver = library.Solver(library.TermManager())
    solver.setOption("solve-bv-as-int", "sum")
    parser = library.InputParser(solver)
    parser.setFileInput(library.InputLanguage.SMT_LIB_2_6, path)
    while not (command := parser.nextCommand()).isNull():
        if command.getCommandName() != "get-model":
            print(command.invoke(solver, parser.getSymbolManager()), end="", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "--facts":
        print(prove_facts())
    elif sys.argv[1] == "--cvc5":
        cvc5(sys.argv[2])
    else:
        print(solve(Path(sys.argv[1])))
