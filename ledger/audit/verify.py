"""Check an audit bundle alone: no node, no database, no network; nothing of Sluice but `ledger.core` and the form.

    python -m ledger.audit.verify FOLDER [--json]

Exit code 0: everything that is claimed below holds. 1: something does not; each fault names file, record and field.
2: this is not a bundle.

What is checked: every byte against the manifests (SHA-256 and SM3); the authorization's id against its terms; rate
card and split against their ids; every leaf (hash, index, totals, times, payload, scope, the provider's signature);
every head (root, totals, both signatures); every settlement (a head both signed, the price recomputed); the bill,
line by line. What is not: that the events are on the chain (compare the block hash printed with a node's).
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ledger.audit import bundle
from ledger.core.charges import lines
from ledger.core.errors import InputInvalid, SluiceError
from ledger.core.hashing import canonical_json, sha256
from ledger.core.ids import Hash32, hash_of, parse_bytes, parse_hash, raw
from ledger.core.merkle import Tree
from ledger.core.money import UY_PER_FEN, round_to_fen
from ledger.core.ratecard import RateCard, Split
from ledger.core.signing import is_signed_by
from ledger.core.terms import AuthorizationTerms, Quad, UsageHead, UseReceipt
from ledger.core.typed_data import Domain
from ledger.core.usage_leaf import Kind, UsageLeaf, payload_hash


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that does not hold. `record` is a line or leaf, `field` what in it."""

    file: str
    record: str
    field: str
    message: str

    def __str__(self) -> str:
        place = " · ".join(part for part in (self.file, self.record, self.field) if part)
        return f"{place}: {self.message}"


@dataclass(slots=True)
class Report:
    """What was checked, and every fault."""

    checked: dict[str, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    info: dict[str, str] = field(default_factory=dict)

    def count(self, what: str, many: int = 1) -> None:
        self.checked[what] = self.checked.get(what, 0) + many

    def must(self, holds: bool, file: str, record: str, name: str, message: str) -> bool:
        if not holds:
            self.faults.append(Fault(file, record, name, message))
        return holds

    def as_json(self) -> dict[str, Any]:
        faults = [{"file": f.file, "record": f.record, "field": f.field, "message": f.message} for f in self.faults]
        return {"holds": not self.faults, "checked": self.checked, "faults": faults, "info": self.info}


def verify(folder: Path, each: Callable[[str], None] = lambda _: None) -> Report:
    """Checks a whole bundle and reports every fault it finds.

    Raises:
        InputInvalid: there is no bundle at `folder`.
    """
    if not (folder / "bagit.txt").is_file() and not (folder / "data").is_dir():
        raise InputInvalid(f"{folder} is not an audit bundle", field="folder")
    report = Report()
    each("manifests")
    for problem in bundle.check(folder):
        report.faults.append(Fault(problem.details["file"], "", "", problem.message))
    report.count("files", sum(path.is_file() for path in folder.rglob("*")))
    try:
        report.info = _info(folder)
        deployment = json.loads((folder / "data/deployment.json").read_bytes())
        contracts, chain_id = deployment["contracts"], int(deployment["chainId"])
    except (OSError, ValueError, KeyError, TypeError) as problem:
        report.faults.append(Fault("data/deployment.json", "", "", f"cannot be read: {problem}"))
        return report
    for path in sorted((folder / "data" / "authorizations").glob("0x*")):
        each(path.name)
        try:
            _authorization(report, folder, path, chain_id, contracts)
        except (OSError, ValueError, KeyError, TypeError, IndexError, OverflowError, SluiceError) as problem:
            # A record so damaged that it cannot be read: the manifest has named the file, this names the reason.
            report.faults.append(Fault(path.relative_to(folder).as_posix(), "", "", f"cannot be read: {problem}"))
    return report


def _info(folder: Path) -> dict[str, str]:
    text = (folder / "bag-info.txt").read_text(encoding="utf-8")
    return dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)


def _authorization(report: Report, folder: Path, path: Path, chain_id: int, contracts: dict[str, str]) -> None:
    base = path.relative_to(folder).as_posix()
    document = json.loads((path / "authorization.json").read_bytes())
    file = f"{base}/authorization.json"
    terms = AuthorizationTerms.from_json(document["terms"])
    domain = Domain(chain_id, parse_hash_address(contracts[document["ledger"]]))
    authorization_id = terms.digest(domain)
    report.must(
        authorization_id == document["authorization"] == path.name,
        file,
        "",
        "terms",
        f"the terms' digest is {authorization_id}, not the authorization's id",
    )
    card, split = RateCard.decode(raw(document["rateCard"])), Split.decode(raw(document["split"]))
    report.must(card.id() == terms.rate_card, file, "", "rateCard", "is not the card the terms name")
    report.must(split.id() == terms.split, file, "", "split", "is not the split the terms name")
    report.count("authorizations")

    leaves = _leaves(report, path / "leaves.jsonl", f"{base}/leaves.jsonl", terms, domain, authorization_id)
    tree = Tree(leaf.hash() for leaf in leaves)
    heads = _heads(report, path / "heads.jsonl", f"{base}/heads.jsonl", terms, domain, leaves, tree)
    last = _settlements(report, path / "settlements.jsonl", f"{base}/settlements.jsonl", card, heads)
    _bill(report, path / "bill.json", f"{base}/bill.json", terms, card, split, leaves, last)


def parse_hash_address(text: str) -> Any:
    """A contract's address as the domain wants it."""
    parse_bytes(text, "contract", 20)
    return text.lower()


def _leaves(
    report: Report, path: Path, file: str, terms: AuthorizationTerms, domain: Domain, authorization_id: Hash32
) -> list[UsageLeaf]:
    leaves: list[UsageLeaf] = []
    total: Quad = (0, 0, 0, 0)
    credits = served = 0
    used: set[str] = set()
    for n, line in enumerate(path.read_bytes().splitlines()):
        where = f"leaf {n}"
        try:
            entry = json.loads(line)
            leaf = UsageLeaf.from_json(entry["leaf"])
            signature, salt, payload = entry["signature"], entry["salt"], entry["payload"]
        except (ValueError, KeyError, TypeError, SluiceError) as problem:
            name = problem.details.get("field", "") if isinstance(problem, SluiceError) else ""
            report.faults.append(Fault(file, where, name, f"cannot be read: {problem}"))
            continue
        receipt = UseReceipt(
            authorization_id=leaf.authorization_id,
            index=leaf.index,
            leaf_hash=hash_of(leaf.hash()),
            cum_units=leaf.cum_units,
            served_at=leaf.served_at,
        )
        expected = tuple(a + b for a, b in zip(total, leaf.units, strict=True))

        def must(holds: bool, name: str, message: str, where: str = where) -> None:
            report.must(holds, file, where, name, message)

        must(leaf.index == n, "index", f"is {leaf.index}, expected {n}")
        must(leaf.authorization_id == authorization_id, "authorizationId", "is another authorization's")
        must(leaf.cum_units == expected, "cumUnits", "is not the sum of the units so far")
        must(leaf.cum_credits >= credits, "cumCredits", "falls")
        must(leaf.served_at >= served, "servedAt", "runs backwards")
        must(leaf.use_id_hash not in used, "useIdHash", "was used before")
        must(
            is_signed_by(terms.provider, receipt, domain, str(signature)),
            "signature",
            "is not the provider's over this leaf",
        )
        if payload is not None:
            salted = payload_hash(parse_bytes(salt, "salt", 16), payload)
            must(salted == leaf.payload_hash, "payload", "is not the payload the leaf commits to")
        if leaf.kind == Kind.USE:
            scope = terms.scope
            must(bool(scope.purposes >> leaf.purpose & 1), "purpose", "is outside the terms")
            must(bool(scope.modalities >> leaf.modality & 1), "modality", "is outside the terms")
            must(leaf.version == scope.version or not int(scope.version, 16), "version", "is outside the terms")
        if leaf.kind == Kind.REFUSAL:
            must(not any(leaf.units), "units", "a refusal counts units")
        used.add(leaf.use_id_hash)
        total, credits, served = leaf.cum_units, leaf.cum_credits, leaf.served_at
        leaves.append(leaf)
    report.count("leaves", len(leaves))
    return leaves


def _heads(
    report: Report,
    path: Path,
    file: str,
    terms: AuthorizationTerms,
    domain: Domain,
    leaves: list[UsageLeaf],
    tree: Tree,
) -> list[UsageHead]:
    heads = []
    for n, line in enumerate(path.read_bytes().splitlines()):
        record = json.loads(line)
        head = UsageHead.from_json(record["head"])
        where = f"head of {head.size} leaves (line {n + 1})"
        if not report.must(0 < head.size <= len(leaves), file, where, "size", f"only {len(leaves)} leaves are there"):
            continue
        last = leaves[head.size - 1]
        root = hash_of(tree.root(head.size))
        report.must(head.root == root, file, where, "root", f"the leaves give {root}")
        report.must(head.units == last.cum_units, file, where, "units", "differ from the last leaf's totals")
        report.must(head.credits == last.cum_credits, file, where, "credits", "differ from the last leaf's")
        report.must(head.as_of == last.served_at, file, where, "asOf", "differs from the last leaf's time")
        signed = is_signed_by(terms.provider, head, domain, str(record["providerSignature"]))
        report.must(signed, file, where, "providerSignature", "is not the provider's over this head")
        if record["consumerSignature"] is not None:
            signed = is_signed_by(terms.consumer, head, domain, str(record["consumerSignature"]))
            if report.must(signed, file, where, "consumerSignature", "is not the consumer's over this head"):
                heads.append(head)
    report.count("heads", len(heads))
    return heads


def _settlements(report: Report, path: Path, file: str, card: RateCard, heads: list[UsageHead]) -> dict[str, Any]:
    last: dict[str, Any] = {}
    paid = size = 0
    for n, line in enumerate(path.read_bytes().splitlines()):
        record = json.loads(line)
        where = f"line {n + 1}"
        head = UsageHead.from_json(record["head"])
        due = card.due(head.units, head.credits)
        report.must(head in heads, file, where, "head", "is not a head both wallets signed")
        report.must(head.size > size, file, where, "size", "does not grow")
        report.must(int(record["due"]) == due, file, where, "due", f"is {record['due']}, the units come to {due}")
        report.must(int(record["paid"]) >= paid, file, where, "paid", "falls")
        arrears = max(0, due - int(record["paid"]))
        report.must(int(record["arrears"]) == arrears, file, where, "arrears", f"is not {arrears}")
        paid, size, last = int(record["paid"]), head.size, record
    report.count("settlements", 0 if not last else n + 1)
    return last


def _bill(
    report: Report,
    path: Path,
    file: str,
    terms: AuthorizationTerms,
    card: RateCard,
    split: Split,
    leaves: list[UsageLeaf],
    last: dict[str, Any],
) -> None:
    bill = json.loads(path.read_bytes())
    size = int(last["head"]["size"])
    found = lines(card, (0, 0, 0, 0), leaves[:size])
    for n, line in enumerate(found):
        written = bill["lines"][n] if n < len(bill["lines"]) else None
        report.must(written == line.as_json(), file, f"line {n + 1}", "", f"the leaves give {line.as_json()}")
    report.must(len(bill["lines"]) == len(found), file, "", "lines", f"the leaves give {len(found)}")
    subtotal = sum(line.amount for line in found)
    credits, paid = int(last["head"]["credits"]), int(bill["paid"])
    due = max(0, subtotal - credits)
    expected: dict[str, Any] = {
        "authorization": path.parent.name,
        "provider": terms.provider,
        "consumer": terms.consumer,
        "product": terms.scope.product,
        "token": terms.token,
        "rateCard": terms.rate_card,
        "subtotal": str(subtotal),
        "credits": str(credits),
        "due": last["due"] if due == int(last["due"]) else str(due),
        "arrears": str(max(0, due - paid)),
        "split": {p: str(a) for p, a in split.amounts(due if terms.invoiced else paid).items()},
        "settlement": {"transaction": last["transaction"], "block": last["block"]},
    }
    if terms.invoiced:
        payable = max(0, sum(round_to_fen(line.amount) for line in found) - round_to_fen(credits))
        expected |= {"payableFen": str(payable), "roundingUy": str(payable * UY_PER_FEN - due)}
    for name, value in expected.items():
        report.must(bill.get(name) == value, file, "", name, f"is {bill.get(name)}, recomputed {value}")
    report.must(paid >= int(last["paid"]), file, "", "paid", "is less than what was settled")
    digest = bill.pop("digest", None)
    computed = hash_of(sha256(canonical_json(bill)))
    report.must(digest == computed, file, "", "digest", f"is {digest}, the bill's is {computed}")
    report.must(parse_hash(str(digest), "digest") == digest, file, "", "digest", "is malformed")
    report.count("bills")
    report.count("bill lines", len(found))


def tell(report: Report, say: Callable[[str], None]) -> None:
    """The report in words."""
    for what, many in report.checked.items():
        say(f"  checked {many:>7,} {what}")
    if report.info:
        say(f"  as of block {report.info.get('Sluice-Block')} {report.info.get('Sluice-Block-Hash')}")
        say("  not checked here: that this block is on the chain; compare its hash with a node's")
    for fault in report.faults[:50]:
        say(f"  FAULT {fault}")
    if len(report.faults) > 50:
        say(f"  … and {len(report.faults) - 50} more faults")
    say("HOLDS 验证通过" if not report.faults else f"DOES NOT HOLD 验证未通过: {len(report.faults)} faults")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="sluice-verify", description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    options = parser.parse_args(arguments)
    try:
        report = verify(options.folder)
    except InputInvalid as problem:
        print(problem, file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(report.as_json(), ensure_ascii=False, indent=1))
    else:
        tell(report, print)
    return 0 if not report.faults else 1


if __name__ == "__main__":
    sys.exit(main())
