"""Collecting what a bundle holds: from the mirror, the usage logs and the bills derived from both."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from ledger.audit import bundle
from ledger.audit.replay import SIGNATURES
from ledger.billing.bills import bill_of
from ledger.core.codes import digest as codes_digest
from ledger.core.errors import InputInvalid
from ledger.core.hashing import canonical_json
from ledger.core.ids import Hash32
from ledger.core.terms import UsageHead
from ledger.metering import heads
from ledger.metering.log import read_entries
from ledger.mirror import queries, schema

FORMAT = "sluice-audit-bundle/1"


def export(
    folder: Path,
    mirror: Connection,
    usage: Connection,
    deployment: dict[str, Any],
    authorizations: Sequence[Hash32],
    each: Callable[[str], None] = lambda _: None,
) -> Path:
    """Writes a bundle over these authorizations as of the mirror's last block.

    Raises:
        NotFound: an authorization is unknown, or has no settled head.
        BillDiffers: leaves and chain disagree; the bundle is not written.
    """
    tip = queries.position(mirror)
    if tip is None:
        raise InputInvalid("the mirror is empty")
    records: dict[str, bytes] = {"deployment.json": _document(deployment)}
    spaces: set[str] = set()
    products: set[str] = set()
    for authorization_id in authorizations:
        each(authorization_id)
        row = queries.authorization(mirror, authorization_id)
        spaces.add(row["space"])
        products.add(row["product"])
        records |= _authorization(mirror, usage, row)
    for space in sorted(spaces):
        people = queries.rows(mirror, schema.participants, space=space, limit=100_000)
        found = {"space": queries.one(mirror, schema.spaces, "space", space=space), "participants": people}
        records[f"spaces/{space}.json"] = _document(_texts(found))
    for product in sorted(products):
        versions = queries.rows(mirror, schema.versions, product=product, limit=100_000)
        found = {"product": queries.one(mirror, schema.products, "product", product=product), "versions": versions}
        records[f"products/{product}.json"] = _document(_texts(found))
    info = {
        "Bag-Software-Agent": "Sluice 0.1.0",
        "Sluice-Format": FORMAT,
        "Sluice-Chain-Id": str(deployment["chainId"]),
        "Sluice-Block": str(tip.number),
        "Sluice-Block-Hash": tip.hash,
        "Sluice-Code-Lists": codes_digest(),
    }
    bundle.write(folder, records, info)
    return folder


def _authorization(mirror: Connection, usage: Connection, row: dict[str, Any]) -> dict[str, bytes]:
    authorization_id = Hash32(row["authorization"])
    entries = read_entries(usage, authorization_id)
    terms = queries.terms_of(row)
    bill = bill_of(mirror, authorization_id, [entry.leaf for entry in entries])
    base = f"authorizations/{authorization_id}"
    return {
        f"{base}/authorization.json": _document(
            {
                "authorization": authorization_id,
                "ledger": row["ledger"],
                "terms": terms.as_json(),
                "rateCard": queries.one(mirror, schema.rate_cards, "card", rate_card=terms.rate_card)["encoded"],
                "split": queries.one(mirror, schema.splits, "split", split=terms.split)["encoded"],
                "status": row["status"],
                "endedAt": row["ended_at"],
                "endedHow": row["ended_how"],
                "reason": row["reason"],
                "sessionKeys": _session_keys(mirror, row),
            }
        ),
        f"{base}/leaves.jsonl": bundle.jsonl(entry.as_json() for entry in entries),
        f"{base}/heads.jsonl": bundle.jsonl(signed.as_json() for signed in heads.read(usage, authorization_id)),
        f"{base}/settlements.jsonl": bundle.jsonl(
            {
                "head": UsageHead.from_json(s["head"]).as_json(),
                "due": str(s["due"]),
                "paid": str(s["paid"]),
                "arrears": str(s["arrears"]),
                "transaction": s["transaction_hash"],
                "block": s["block_number"],
            }
            for s in queries.settlements(mirror, authorization_id)
        ),
        f"{base}/payments.jsonl": bundle.jsonl(
            {
                "kind": p["kind"],
                "reference": p["reference_hash"],
                "amount": str(p["amount"]),
                "transaction": p["transaction_hash"],
                "block": p["block_number"],
            }
            for p in queries.payments(mirror, authorization_id)
        ),
        f"{base}/events.jsonl": bundle.jsonl(
            {
                "event": e["event"],
                "blockNumber": e["block_number"],
                "blockHash": e["block_hash"],
                "logIndex": e["log_index"],
                "transactionHash": e["transaction_hash"],
                "address": e["address"],
                "topics": e["topics"],
                "data": e["data"],
            }
            for e in queries.events(mirror, authorization_id)
            # What others say about it (a skipped row, a proven fact) is no part of its history.
            if e["contract"] == terms.ledger and e["event"] in SIGNATURES
        ),
        f"{base}/bill.json": _document(bill.as_json() | {"digest": bill.digest()}),
    }


def _document(value: Any) -> bytes:
    return canonical_json(value) + b"\n"


def _texts(value: Any) -> Any:
    """Numbers that JSON readers may round as text."""
    if isinstance(value, dict):
        return {k: _texts(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_texts(v) for v in value]
    return str(value) if isinstance(value, int) and value >> 48 else value


def _session_keys(mirror: Connection, row: dict[str, Any]) -> list[dict[str, Any]]:
    """Keys that ever signed for either party, revoked or not: what they signed while they were live holds."""
    table = schema.session_keys
    query = select(table.c.wallet, table.c.key, table.c.expiry, table.c.revoked_at).where(
        table.c.wallet.in_([row["provider"], row["consumer"]]), schema.holds(table)
    )
    found = mirror.execute(query.order_by(table.c.wallet, table.c.key))
    return [{"wallet": k.wallet, "key": k.key, "expiry": k.expiry, "revokedAt": k.revoked_at} for k in found]
