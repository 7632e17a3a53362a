"""Check an audit bundle alone: no node, no database, no network; nothing of Sluice but `ledger.core` and the form.

    python -m ledger.audit.verify FOLDER [--json]

Exit code 0: everything that is claimed below holds. 1: something does not; each fault names file, record and field.
2: this is not a bundle.

What is checked: every byte against the manifests (SHA-256 and SM3); the authorization's id against its terms; rate
card and split against their ids; every leaf (hash, index, totals, times, payload, scope, the provider's signature);
every head (root, totals, both signatures); every settlement (a head both signed, the price recomputed); the bill,
line by line; settlements, payments and end against the raw logs. What is not: that these logs, and no others, are on
the chain; the contracts' addresses; what `spaces/` and `products/` say.
"""

import argparse
import json
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ledger.audit import bundle
from ledger.audit.replay import History, replay
from ledger.core.charges import lines
from ledger.core.errors import InputInvalid, SluiceError
from ledger.core.hashing import canonical_json, sha256
from ledger.core.ids import Address, Hash32, hash_of, parse_address, parse_bytes, raw
from ledger.core.merkle import Tree
from ledger.core.money import UY_PER_FEN, round_to_fen
from ledger.core.parse import load_json
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


FILES = ("authorization.json", "leaves.jsonl", "heads.jsonl", "settlements.jsonl", "payments.jsonl", "events.jsonl")
_DAMAGE = (OSError, ValueError, KeyError, TypeError, IndexError, OverflowError, SluiceError)


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
        deployment = _document(report, folder, "data/deployment.json")
        contracts, chain_id = deployment["contracts"], int(deployment["chainId"])
        report.must(
            report.info.get("Sluice-Chain-Id") == str(chain_id), "bag-info.txt", "", "Sluice-Chain-Id", "differs"
        )
    except _DAMAGE as problem:
        report.faults.append(Fault("data/deployment.json", "", "", f"cannot be read: {problem}"))
        return report
    found = _listed(report, folder)
    report.must(bool(found), "data/authorizations", "", "", "holds no authorization: there is nothing to check")
    for name in found:
        each(name)
        try:
            _authorization(report, folder, name, chain_id, contracts)
        except _DAMAGE as problem:
            # A record so damaged that it cannot be read: the manifest has named the file, this names the reason.
            report.faults.append(Fault(f"data/authorizations/{name}", "", "", f"cannot be read: {problem}"))
    return report


def _listed(report: Report, folder: Path) -> list[str]:
    """The authorizations there are; every other file must be one this form knows."""
    found: set[str] = set()
    for path in sorted((folder / "data").rglob("*")):
        if not path.is_file():
            continue
        parts = path.relative_to(folder / "data").parts
        if len(parts) == 3 and parts[0] == "authorizations" and parts[2] in (*FILES, "bill.json"):
            found.add(parts[1])
        elif len(parts) == 2 and parts[0] in ("spaces", "products"):
            _document(report, folder, "/".join(("data", *parts)))
        else:
            known = parts == ("deployment.json",)
            report.must(known, "/".join(("data", *parts)), "", "", "does not belong into a bundle")
    return sorted(found)


def _document(report: Report, folder: Path, file: str) -> Any:
    """A JSON document, which must stand in its one written form (RFC 8785 and a line feed)."""
    content = (folder / file).read_bytes()
    value = load_json(content, file)
    report.must(content == canonical_json(value) + b"\n", file, "", "", "is not in its one written form")
    return value


def _records(report: Report, folder: Path, file: str) -> list[Any]:
    """JSON lines, each in its one written form; a line that cannot be read is a fault and None."""
    records: list[Any] = []
    for n, line in enumerate((folder / file).read_bytes().splitlines(keepends=True)):
        try:
            value = load_json(line, f"line {n + 1}")
            report.must(
                line == canonical_json(value) + b"\n", file, f"line {n + 1}", "", "is not in its one written form"
            )
        except SluiceError as problem:
            report.faults.append(Fault(file, f"line {n + 1}", "", str(problem)))
            value = None
        records.append(value)
    return records


def _info(folder: Path) -> dict[str, str]:
    text = (folder / "bag-info.txt").read_text(encoding="utf-8")
    return dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)


def _authorization(report: Report, folder: Path, name: str, chain_id: int, contracts: dict[str, str]) -> None:
    base = f"data/authorizations/{name}"
    file = f"{base}/authorization.json"
    document = _document(report, folder, file)
    terms = AuthorizationTerms.from_json(document["terms"])
    ledger = terms.ledger
    domain = Domain(chain_id, parse_address(contracts[ledger], ledger))
    authorization_id = terms.digest(domain)
    card, split = RateCard.decode(raw(document["rateCard"])), Split.decode(raw(document["split"]))
    report.must(
        authorization_id == name,
        file,
        "",
        "terms",
        f"the terms' digest is {authorization_id}, not the authorization's id",
    )
    report.must(card.id() == terms.rate_card, file, "", "rateCard", "is not the card the terms name")
    report.must(split.id() == terms.split, file, "", "split", "is not the split the terms name")
    report.count("authorizations")

    history = _history(report, folder, base, terms, authorization_id, domain.verifying_contract)
    expected = {
        "authorization": name,
        "ledger": ledger,
        "terms": terms.as_json(),
        "rateCard": "0x" + card.encode().hex(),
        "split": "0x" + split.encode().hex(),
        "status": history.status,
        "endedAt": history.ended_at,
        "endedHow": history.ended_how,
        "reason": history.reason,
        "sessionKeys": document.get("sessionKeys"),
    }
    _same(report, file, "", document, expected)
    providers, consumers = _keys(terms.provider, document), [*_keys(terms.consumer, document), terms.metering_agent]
    leaves, unsigned = _leaves(report, folder, f"{base}/leaves.jsonl", terms, domain, authorization_id, providers)
    tree = Tree(leaf.hash() for leaf in leaves)
    heads, ours = _heads(report, folder, f"{base}/heads.jsonl", (providers, consumers), domain, leaves, tree, unsigned)
    # What was paid ahead settles by the provider's word alone: the event says so.
    heads += [head for head in ours if head.size in history.under_ceiling]
    _settlements(report, f"{base}/settlements.jsonl", history, card, heads)
    _bill(report, folder, base, terms, card, split, leaves, history)


Keys = Collection[Address]


def _keys(wallet: Address, document: Any) -> Keys:
    """Who may sign for a wallet: itself, and the session keys the bundle names: their registration is not proven."""
    named = document.get("sessionKeys", [])
    return [wallet, *(parse_address(k["key"], "key") for k in named if k["wallet"] == wallet)]


def _same(report: Report, file: str, record: str, found: Any, expected: dict[str, Any]) -> None:
    """Every member as expected, and none besides."""
    if not isinstance(found, dict):
        report.must(False, file, record, "", "is not an object")
        return
    for name in sorted(set(found) | set(expected)):
        if name not in expected:
            report.must(False, file, record, name, "does not belong here")
        else:
            report.must(
                found.get(name) == expected[name], file, record, name, f"is {found.get(name)}, must be {expected[name]}"
            )


def _history(
    report: Report, folder: Path, base: str, terms: AuthorizationTerms, authorization_id: Hash32, ledger: str
) -> History:
    """The raw logs played again, and the records that must follow from them."""
    rows = _records(report, folder, f"{base}/events.jsonl")
    report.count("events", len(rows))
    try:
        history = replay(rows, terms, authorization_id, ledger)
    except (SluiceError, ValueError, KeyError, TypeError, IndexError) as problem:
        report.faults.append(Fault(f"{base}/events.jsonl", "", "", str(problem)))
        return History(ended_at=terms.valid_until)
    for name, expected in (("settlements", history.settlements), ("payments", history.payments)):
        file = f"{base}/{name}.jsonl"
        written = _records(report, folder, file)
        report.must(
            len(written) == len(expected), file, "", "", f"has {len(written)} records, the events {len(expected)}"
        )
        for n, (mine, theirs) in enumerate(zip(expected, written, strict=False)):
            _same(report, file, f"line {n + 1}", theirs, mine)
    return history


def _leaves(
    report: Report,
    folder: Path,
    file: str,
    terms: AuthorizationTerms,
    domain: Domain,
    authorization_id: Hash32,
    keys: Keys,
) -> tuple[list[UsageLeaf], int]:
    """The leaves, and the index of the last one without a receipt of its own; -1: all have one."""
    leaves: list[UsageLeaf] = []
    total: Quad = (0, 0, 0, 0)
    credits = served = 0
    used: set[str] = set()
    erased, unsigned = 0, -1
    for n, entry in enumerate(_records(report, folder, file)):
        where = f"leaf {n}"
        try:
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
        if signature is None:
            unsigned = n  # one of a batch: a signed head answers for it
        else:
            signed = any(is_signed_by(key, receipt, domain, str(signature)) for key in keys)
            must(signed, "signature", "is not the provider's over this leaf")
        must(set(entry) == {"leaf", "requestHash", "salt", "payload", "signature"}, "", "has other members than a leaf")
        must((salt is None) == (payload is None), "salt", "and payload are erased together, or not at all")
        if payload is None:
            erased += 1
        else:
            salted = payload_hash(parse_bytes(salt, "salt", 16), canonical_json(payload))
            must(salted == leaf.payload_hash, "payload", "is not the payload the leaf commits to")
        must(leaf.kind in set(Kind), "kind", "is not one there is")
        within = all(n <= most for n, most in zip(leaf.cum_units, terms.max_units, strict=True))
        must(within, "cumUnits", "are over the quota")
        if payload is not None and leaf.kind in (Kind.USE, Kind.REFUSAL):
            request = hash_of(sha256(canonical_json(payload.get("asked"))))
            must(entry["requestHash"] == request, "requestHash", "is not that of the request in the payload")
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
    report.count("leaves whose payload was erased", erased)
    return leaves, unsigned


def _heads(
    report: Report,
    folder: Path,
    file: str,
    keys: tuple[Keys, Keys],
    domain: Domain,
    leaves: list[UsageLeaf],
    tree: Tree,
    unsigned: int,
) -> tuple[list[UsageHead], list[UsageHead]]:
    """The heads both signed, and those the provider signed: one of these must reach beyond every leaf without a receipt
    of its own."""
    heads, ours = [], []
    answered = 0
    for n, record in enumerate(_records(report, folder, file)):
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
        signed = any(is_signed_by(key, head, domain, str(record["providerSignature"])) for key in keys[0])
        if report.must(signed, file, where, "providerSignature", "is not the provider's over this head"):
            answered = max(answered, head.size)
            ours.append(head)
        if record["consumerSignature"] is not None:
            signed = any(is_signed_by(key, head, domain, str(record["consumerSignature"])) for key in keys[1])
            if report.must(signed, file, where, "consumerSignature", "is not the consumer's over this head"):
                heads.append(head)
    what = f"leaf {unsigned} has no receipt, and no head signed by the provider answers for it"
    report.must(unsigned < answered, file, "", "signature", what)
    report.count("heads", len(heads))
    return heads, ours


def _settlements(report: Report, file: str, history: History, card: RateCard, heads: list[UsageHead]) -> None:
    """Each settled head is one both wallets signed, and its price is what the units come to."""
    paid = size = 0
    for n, record in enumerate(history.settlements):
        where = f"line {n + 1}"
        head = UsageHead.from_json(record["head"])
        due = card.due(head.units, head.credits)
        report.must(head in heads, file, where, "head", "is not a head both wallets signed, or one under a ceiling")
        report.must(head.size > size, file, where, "size", "does not grow")
        report.must(int(record["due"]) == due, file, where, "due", f"is {record['due']}, the units come to {due}")
        arrears = max(0, due - int(record["paid"]))
        report.must(int(record["arrears"]) == arrears, file, where, "arrears", f"is not {arrears}")
        paid, size = int(record["paid"]), head.size
        report.must(paid <= history.paid or due == 0, file, where, "paid", "is more than was paid in the end")
    report.count("settlements", len(history.settlements))


def _bill(
    report: Report,
    folder: Path,
    base: str,
    terms: AuthorizationTerms,
    card: RateCard,
    split: Split,
    leaves: list[UsageLeaf],
    history: History,
) -> None:
    file = f"{base}/bill.json"
    bill = _document(report, folder, file)
    if not history.settlements:
        report.must(False, file, "", "", "there is a bill, and no settlement")
        return
    last = history.settlements[-1]
    head = UsageHead.from_json(last["head"])
    found = lines(card, (0, 0, 0, 0), leaves[: head.size])
    for n, line in enumerate(found):
        written = bill["lines"][n] if n < len(bill["lines"]) else None
        report.must(written == line.as_json(), file, f"line {n + 1}", "", f"the leaves give {line.as_json()}")
    subtotal = sum(line.amount for line in found)
    due = max(0, subtotal - head.credits)
    basis = due if terms.invoiced else history.paid
    expected: dict[str, Any] = {
        "bill": "sluice-bill",
        "formatVersion": 1,
        "authorization": head.authorization_id,
        "ledger": terms.ledger,
        "provider": terms.provider,
        "consumer": terms.consumer,
        "product": terms.scope.product,
        "token": terms.token,
        "rateCard": terms.rate_card,
        "head": {
            "size": head.size,
            "units": [str(n) for n in head.units],
            "asOf": head.as_of,
            "root": head.root,
        },
        "settlement": {"transaction": last["transaction"], "block": last["block"]},
        "lines": [line.as_json() for line in found],
        "subtotal": str(subtotal),
        "credits": str(head.credits),
        "due": str(due),
        "paid": str(history.paid),
        "arrears": str(max(0, due - history.paid)),
        "split": {payee: str(amount) for payee, amount in split.amounts(basis).items()},
        "payableFen": None,
        "outstandingFen": None,
        "roundingUy": None,
    }
    if terms.invoiced:
        payable = max(0, sum(round_to_fen(line.amount) for line in found) - round_to_fen(head.credits))
        expected |= {
            "payableFen": str(payable),
            "outstandingFen": str(max(0, payable - history.paid // UY_PER_FEN)),
            "roundingUy": str(payable * UY_PER_FEN - due),
        }
    expected["digest"] = hash_of(sha256(canonical_json(expected)))
    _same(report, file, "", bill, expected)
    report.count("bills")
    report.count("bill lines", len(found))


def tell(report: Report, say: Callable[[str], None]) -> None:
    """The report in words."""
    for what, many in report.checked.items():
        say(f"  checked {many:>7,} {what}")
    if report.info:
        say(f"  as of block {report.info.get('Sluice-Block')} {report.info.get('Sluice-Block-Hash')}")
        say("  not checked here, and resting on who exported this: that these events, and no others, are on the chain")
        say("  (compare the block hash with a node's), the contracts' addresses, and what spaces/ and products/ say")
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
