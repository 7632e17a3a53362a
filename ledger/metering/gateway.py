"""A provider's gateway, without its HTTP face: what may be used, what was, and the signatures the two sides owe.

Who may do what: a consumer's session its own authorization, an agent's the same within its grant, the provider's all of
the provider's. What a request without a session asks for is neither served nor recorded.
"""

import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection, Engine, func, select, update

from ledger.core.checkpoint import checkpoint
from ledger.core.database import insert_unless, writing
from ledger.core.errors import Conflict, InputInvalid, NotFound, Refused, VerificationFailed
from ledger.core.hashing import canonical_json, sha256
from ledger.core.ids import ZERO_ADDRESS, Address, Hash32, hash_of
from ledger.core.merkle import Nodes
from ledger.core.parse import parse_uint
from ledger.core.signing import Signer, recover
from ledger.core.terms import AGENT_CAPPED, UsageCeiling, UsageHead
from ledger.core.tiles import WIDTH, bundle
from ledger.core.typed_data import Domain
from ledger.core.usage_leaf import SALT_BYTES, Kind, payload_hash, use_id_hash
from ledger.metering import heads, schema, x402
from ledger.metering.admission import TO_SETTLE
from ledger.metering.counting import Counter
from ledger.metering.duty import HeadDuty
from ledger.metering.log import (
    NO_UNITS,
    Entry,
    SignedHead,
    UsageLog,
    erase_payload,
    read_entries,
    read_tile,
    receipt_of,
)
from ledger.metering.personal import refuse_personal
from ledger.metering.policy import Policy
from ledger.metering.recorder import Recorder
from ledger.metering.sessions import Sessions
from ledger.metering.standing import Finality, Standings, session_keys
from ledger.mirror import queries
from ledger.mirror.queries import Row

OPEN_DISPUTES = 100  # of an authorization, waiting for an answer


class Gateway:
    """Sessions, standings and recorder of one provider over one mirror and one database of usage logs."""

    def __init__(
        self,
        *,
        mirror: Engine,
        usage: Engine,
        provider: Address,
        signer: Signer,
        domains: Mapping[str, Domain],
        policies: Mapping[Hash32, Policy],
        origin: str,
        finality: Finality = "seen",
        credit_up_to: int = 0,
        sign_after: int = 300,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Args:
        provider: whose data this is; `signer` is its wallet, or better a session key of it.
        domains: a ledger's name → its signing domain.
        policies: by digest, as terms pin them.
        origin: the URL consumers see.
        sign_after: seconds that uses may wait for the consumer's signature before it is asked for.
        credit_up_to: disputes are credited without asking anybody until all credits of an authorization come to this,
            in token units.
        """
        self._mirror, self._usage, self._signer, self._domains = mirror, usage, signer, domains
        self._provider, self._credit_up_to, self._clock = provider, credit_up_to, clock
        self.policies = policies
        self._meters: dict[Hash32, tuple[Counter, ...]] = {}  # terms never change
        self.origin = origin.rstrip("/")
        self.sessions = Sessions(
            mirror=mirror, usage=usage, provider=provider, domains=domains, origin=origin, clock=clock
        )
        self.standings = Standings(mirror, policies, signer.address, finality=finality, clock=clock)
        self.recorder = Recorder(usage, self.standings, signer, domains)
        self.duty = HeadDuty(usage, sign_after, clock)

    def close(self) -> None:
        self.duty.close()
        self.recorder.close()
        self.standings.close()

    def log(self, authorization_id: Hash32) -> UsageLog:
        """The log as it is now."""
        return self.recorder.log(authorization_id)

    def row(self, authorization_id: Hash32) -> Row:
        """The authorization as the mirror has it. Raises NotFound if it is another provider's."""
        with self._mirror.connect() as connection:
            row = queries.authorization(connection, authorization_id)
        if row["provider"] != self._provider:
            raise NotFound(f"authorization {authorization_id} is not of this provider")
        return row

    def meters(self, authorization_id: Hash32) -> tuple[Counter, ...]:
        """What each meter counts, from the policy that the terms pin."""
        found = self._meters.get(authorization_id)
        if found is None:
            policy = queries.terms_of(self.row(authorization_id)).scope.policy_hash
            if policy not in self.policies:
                raise NotFound(f"this gateway does not have the policy {policy} of the terms")
            found = self._meters[authorization_id] = self.policies[policy].meters
        return found

    # --------------------------------------------------------------------------------------------- heads

    def head(self, authorization_id: Hash32) -> SignedHead:
        """The head to sign next, signed by the provider.

        Leaves after the end of an authorization (refusals) go into a head of their own: one that adds units must not
        be dated after the end.
        """
        row = self.row(authorization_id)
        self._give_back(authorization_id, {"reason": "what credited leaves cost has grown"})
        with self._usage.connect() as connection:
            signed = heads.latest_signed(connection, authorization_id)
        log = self.log(authorization_id)
        size = len(log)
        in_time = log.size_at(row["ended_at"])
        if signed is None or in_time > signed.head.size:
            size = in_time or size
        return self._sign(row, log.head(size))

    def head_over(self, authorization_id: Hash32, size: int) -> SignedHead:
        """The head of the first `size` leaves, signed by the provider."""
        return self._sign(self.row(authorization_id), self.log(authorization_id).head(size))

    def _sign(self, row: Row, head: UsageHead) -> SignedHead:
        made = SignedHead(head, self._signer.sign(head, self._domains[row["ledger"]]), None)
        heads.save(self._usage, made)
        return made

    def add_signature(self, authorization_id: Hash32, body: Any) -> SignedHead:
        """The consumer's signature under a head made here: its wallet's, a session key's or the metering agent's."""
        if not isinstance(body, dict) or set(body) != {"head", "consumerSignature"}:
            raise InputInvalid("send the members head and consumerSignature")
        head = UsageHead.from_json(body["head"])
        if head.authorization_id != authorization_id or head.size >> 62:
            raise InputInvalid("the head is not one of this authorization", field="head")
        row = self.row(authorization_id)
        with self._usage.connect() as connection:
            known = heads.at_size(connection, authorization_id, head.size)
        if known.head != head:
            raise Conflict("this is not the head the gateway made", size=head.size)
        signature = str(body["consumerSignature"])
        self._signed_for_consumer(head, row, signature)
        signed = SignedHead(head, known.provider_signature, signature)
        self.recorder.take_signature(signed)
        return signed

    def take_ceiling(self, authorization_id: Hash32, body: Any) -> UsageCeiling:
        """The consumer pays ahead: uses up to these bounds need no head of its own."""
        if not isinstance(body, dict) or set(body) != {"ceiling", "signature"}:
            raise InputInvalid("send the members ceiling and signature")
        ceiling = UsageCeiling.from_json(body["ceiling"])
        if ceiling.authorization_id != authorization_id:
            raise InputInvalid("the ceiling is not of this authorization", field="ceiling")
        now = int(self._clock())
        if ceiling.expiry <= now + TO_SETTLE:
            raise InputInvalid(
                f"a ceiling must hold for more than {TO_SETTLE} seconds: heads settle under it", field="expiry"
            )
        signature = str(body["signature"])
        self._signed_for_consumer(ceiling, self.row(authorization_id), signature)
        self.recorder.take_ceiling(ceiling, signature, now)
        return ceiling

    def _signed_for_consumer(self, message: UsageHead | UsageCeiling, row: Row, signature: str) -> None:
        """Raises VerificationFailed unless the contract would take it as the consumer's word, cap and all."""
        signer = recover(message.digest(self._domains[row["ledger"]]), signature)
        if signer == row["consumer"]:
            return
        terms = queries.terms_of(row)
        with self._mirror.connect() as connection:
            key = session_keys(connection, row["consumer"]).get(signer)
            card = queries.rate_card(connection, terms.rate_card)
        if isinstance(message, UsageHead):
            due = card.due(message.units, message.credits)
            if signer == terms.metering_agent and signer != ZERO_ADDRESS and not terms.flags & AGENT_CAPPED:
                return
        else:
            due = message.max_due
        if key is not None and key.expiry >= self._clock() and due > key.max_due:
            words = f"{signer} signs for at most {key.max_due} token units, this comes to {due}: its wallet must sign"
            raise VerificationFailed(words)
        if key is None or key.expiry < self._clock():
            raise VerificationFailed(f"this is not signed by {row['consumer']} or a key that may sign for it")

    def payment_required(self, authorization_id: Hash32, url: str) -> tuple[SignedHead, dict[str, Any]]:
        """The head that waits for a signature, and the same in x402's terms."""
        row, signed = self.row(authorization_id), self.head(authorization_id)
        log = self.log(authorization_id)
        with self._mirror.connect() as connection:
            card = queries.rate_card(connection, queries.terms_of(row).rate_card)
        due = card.due(signed.head.units, signed.head.credits)
        waits = max(0, due - card.due(log.acknowledged, signed.head.credits))
        return signed, x402.to_sign(url, row, self._domains[row["ledger"]], signed, due, waits)

    def authorization_required(self, url: str) -> dict[str, Any]:
        """What somebody without a session needs, in x402's terms."""
        return x402.to_begin(url, self.origin, self._domains["UsageLedger"])

    def take_payment(self, authorization_id: Hash32, header: str) -> None:
        """A signature that came as an x402 payment. Raises InputInvalid, Conflict or VerificationFailed."""
        scheme, body = x402.read_payment(header)
        if scheme == x402.HEAD:
            self.add_signature(authorization_id, body)
        else:
            self.take_ceiling(authorization_id, body)

    # ----------------------------------------------------------------------------------------- the tree

    def entries(self, authorization_id: Hash32, first: int, limit: int) -> list[dict[str, Any]]:
        with self._usage.connect() as connection:
            return [e.as_json() for e in read_entries(connection, authorization_id, first, limit)]

    def use(self, authorization_id: Hash32, use_id: str) -> Entry:
        """What was recorded under a use id. Raises NotFound."""
        found = self.log(authorization_id).find(use_id_hash(use_id))
        if found is None:
            raise NotFound("no use is recorded under this id")
        return found

    def checkpoint(self, authorization_id: Hash32, size: int | None = None) -> str:
        """The log's newest signed head, or the one of this size, as a C2SP checkpoint."""
        row = self.row(authorization_id)
        with self._usage.connect() as connection:
            if size is None:
                found = heads.newest(connection, authorization_id)
            else:
                found = heads.at_size(connection, authorization_id, size)
        domain = self._domains[row["ledger"]]
        signatures = [s for s in (found.provider_signature, found.consumer_signature) if s]
        return checkpoint(found.head, {recover(found.head.digest(domain), s): s for s in signatures})

    def tile(self, authorization_id: Hash32, level: int, index: int, width: int) -> bytes:
        """`width` hashes of a tile (C2SP tlog-tiles). Raises NotFound if there are fewer."""
        size = len(self.log(authorization_id))
        with self._usage.connect() as connection:
            found = read_tile(connection, authorization_id, level, index, size)[: width * 32]
        if not 0 < width <= WIDTH or len(found) != width * 32:
            raise NotFound(f"the log has no tile of {width} hashes there")
        return found

    def entry_bundle(self, authorization_id: Hash32, index: int, width: int) -> bytes:
        """`width` leaves of 229 bytes, each with its length before it."""
        with self._usage.connect() as connection:
            found = read_entries(connection, authorization_id, index * WIDTH, width)
        if not 0 < width <= WIDTH or len(found) != width:
            raise NotFound(f"the log has no {width} leaves there")
        return bundle([entry.leaf.encode() for entry in found])

    def inclusion(self, authorization_id: Hash32, index: int, size: int) -> dict[str, Any]:
        """RFC 9162: that a leaf is in the tree of `size` leaves. Raises NotFound if it is not."""
        return self._proof(authorization_id, size, lambda tree: tree.inclusion(index, size))

    def consistency(self, authorization_id: Hash32, first: int, second: int) -> dict[str, Any]:
        """RFC 9162: that the tree of `first` leaves begins the one of `second`. Raises NotFound if it does not."""
        return self._proof(authorization_id, second, lambda tree: tree.consistency(first, second))

    def _proof(self, authorization_id: Hash32, size: int, make: Callable[[Nodes], list[bytes]]) -> dict[str, Any]:
        tree: Nodes = self.log(authorization_id).tree
        try:
            path, root = make(tree), tree.root(size)
        except ValueError as problem:
            raise NotFound(str(problem)) from None
        return {"size": size, "root": hash_of(root), "proof": [hash_of(node) for node in path]}

    # ------------------------------------------------------------------------------------------ disputes

    def dispute(self, authorization_id: Hash32, body: Any) -> dict[str, Any]:
        """The consumer says that a leaf is not what happened: kept, and credited at once if all that was credited so
        comes to little."""
        if not isinstance(body, dict) or set(body) != {"index", "reason"}:
            raise InputInvalid("send the members index and reason")
        index, reason = parse_uint(body["index"], "index", 62), str(body["reason"])
        if len(reason) > 500 or not reason.isprintable():
            raise InputInvalid("a reason is one line of at most 500 characters", field="reason")
        refuse_personal(reason, "reason")
        row = self.row(authorization_id)
        if self._entry_at(authorization_id, index).leaf.kind != Kind.USE:
            raise Conflict(f"leaf {index} counts nothing that could be disputed", leaf=index)
        table = schema.disputes
        claim = {
            "authorization": authorization_id,
            "receipt_hash": hash_of(sha256(canonical_json({"index": index}))),  # one dispute a leaf
            "index": index,
            "reason": reason,
            "receipt": "",
            "raised_at": int(self._clock()),
        }
        mine = table.c.authorization == authorization_id
        with writing(self._usage) as connection:
            open_ = select(func.count()).select_from(table).where(mine, table.c.answer.is_(None))
            if connection.execute(open_).scalar_one() >= OPEN_DISPUTES:
                raise Refused(f"{OPEN_DISPUTES} disputes wait for an answer already")
            insert_unless(connection, table, claim)
            answer = connection.execute(select(table.c.answer).where(mine, table.c.index == index)).scalar()
        if answer is None and self._credit_up_to:
            log = self.log(authorization_id)
            if log.credits + self._owed(row, log, index) <= self._credit_up_to:
                self.credit(authorization_id, index, "credited without asking: it comes to little")
                answer = "CREDITED"
        return {"index": index, "answer": answer or "OPEN"}

    def disputes(self, authorization_id: Hash32 | None = None) -> list[dict[str, Any]]:
        """All that were raised, the newest last."""
        table = schema.disputes
        query = select(table).order_by(table.c.raised_at, table.c.index)
        if authorization_id is not None:
            query = query.where(table.c.authorization == authorization_id)
        with self._usage.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def credit(self, authorization_id: Hash32, index: int, reason: str) -> Entry | None:
        """Gives back what a leaf counted, by a credit leaf: nothing is rewritten. None: it costs nothing so far.

        What a leaf costs depends on what is used later (free units, tiers): before every head the difference is
        credited, so that the head comes to what it would without the leaves that are credited.
        """
        refuse_personal(reason, "reason")
        if self._entry_at(authorization_id, index).leaf.kind != Kind.USE:
            raise Conflict(f"leaf {index} counted nothing that could be given back", leaf=index)
        self._answer(authorization_id, index, "CREDITED", reason)
        return self._give_back(authorization_id, {"corrects": index, "reason": reason})

    def _give_back(self, authorization_id: Hash32, why: dict[str, Any]) -> Entry | None:
        """A credit leaf of what is owed for credited leaves and not given yet; None: nothing is."""
        row = self.row(authorization_id)

        def make(_: Connection, log: UsageLog) -> Entry | None:
            owed = self._owed(row, log)
            return self._own_leaf(row, log, Kind.CREDIT, why | {"credit": str(owed)}, owed) if owed > 0 else None

        return self.recorder.write(authorization_id, make)

    def erase(self, authorization_id: Hash32, index: int, reason: str) -> Entry:
        """Deletes salt and payload of a leaf: nobody can show any more what it was about. The leaf, all totals and
        every proof stay; a note leaf says that it was done, and why.

        Raises:
            Conflict: it is erased already.
        """
        refuse_personal(reason, "reason")
        row = self.row(authorization_id)
        self._entry_at(authorization_id, index)

        def make(connection: Connection, log: UsageLog) -> Entry:
            if not erase_payload(connection, authorization_id, index):
                raise Conflict(f"leaf {index} is erased already", leaf=index)
            return self._own_leaf(row, log, Kind.NOTE, {"erased": index, "reason": reason})

        made = self.recorder.write(authorization_id, make)
        assert made is not None
        return made

    def _own_leaf(self, row: Row, log: UsageLog, kind: Kind, document: dict[str, Any], credit: int = 0) -> Entry:
        """A leaf of the provider's own, after the last: it counts nothing."""
        last, now = log.last, int(self._clock())
        assert last is not None  # there is a leaf it is about
        salt, written = secrets.token_bytes(SALT_BYTES), canonical_json(document)
        leaf = log.next_leaf(
            use_id_hash=use_id_hash(secrets.token_hex(32)),
            units=NO_UNITS,
            kind=kind,
            purpose=last.purpose,
            modality=last.modality,
            version=last.version,
            payload_hash=payload_hash(salt, written),
            event_time=now,
            now=now,
            credit=credit,
        )
        signature = self._signer.sign(receipt_of(leaf), self._domains[row["ledger"]])
        return Entry(leaf, hash_of(sha256(written)), salt, written, signature)

    def _owed(self, row: Row, log: UsageLog, besides: int | None = None) -> int:
        """What credited leaves (and leaf `besides`) cost as of now, less what was credited: token units."""
        table = schema.disputes
        query = select(table.c.index).where(
            table.c.authorization == log.authorization_id, table.c.answer == "CREDITED", table.c.index.is_not(None)
        )
        with self._usage.connect() as connection:
            indices = set(connection.execute(query).scalars())
        if besides is not None:
            indices.add(besides)
        if not indices:
            return 0
        leaves = [self._entry_at(log.authorization_id, index).leaf for index in sorted(indices)]
        a, b, c, d = (n - sum(leaf.units[m] for leaf in leaves) for m, n in enumerate(log.units))
        with self._mirror.connect() as connection:
            card = queries.rate_card(connection, queries.terms_of(row).rate_card)
        return card.price(log.units) - card.price((a, b, c, d)) - log.credits

    def reject(self, authorization_id: Hash32, index: int) -> None:
        """The leaf stands as it is. Raises Conflict if nobody disputes it, or it is credited."""
        table = schema.disputes
        mine = (table.c.authorization == authorization_id) & (table.c.index == index) & table.c.answer.is_(None)
        with writing(self._usage) as connection:
            if not connection.execute(update(table).where(mine).values(answer="REJECTED")).rowcount:
                raise Conflict(f"nobody disputes leaf {index} of {authorization_id}, or it is answered", leaf=index)

    def _answer(self, authorization_id: Hash32, index: int, answer: str, reason: str) -> None:
        """A provider may credit what nobody disputed."""
        table = schema.disputes
        claim = {
            "authorization": authorization_id,
            "receipt_hash": hash_of(sha256(canonical_json({"index": index}))),
            "index": index,
            "reason": reason,
            "receipt": "",
            "raised_at": int(self._clock()),
            "answer": answer,
        }
        mine = (table.c.authorization == authorization_id) & (table.c.index == index)
        with writing(self._usage) as connection:
            insert_unless(connection, table, claim)
            connection.execute(update(table).where(mine).values(answer=answer))

    def _entry_at(self, authorization_id: Hash32, index: int) -> Entry:
        with self._usage.connect() as connection:
            found = read_entries(connection, authorization_id, index, 1)
        if not found or found[0].leaf.index != index:
            raise NotFound(f"the log has no leaf {index}")
        return found[0]
