"""What the mirror says of authorizations, asked at every use and read anew whenever something was recorded on chain."""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, Engine, select

from ledger.core.database import ask
from ledger.core.errors import MirrorError, NotFound
from ledger.core.ids import ZERO_ADDRESS, Address, Hash32
from ledger.metering.admission import Standing
from ledger.metering.policy import Policy
from ledger.mirror import queries, schema
from ledger.mirror.queries import Row

MIRROR_SECONDS = 30  # how long ago the mirror may have stood at the chain's head
MOST = 10_000  # standings remembered

Finality = Literal["seen", "final"]


class MirrorBehind(MirrorError):
    """The mirror may be older than an end of this authorization: nothing is served by it."""

    code = "mirror_behind"


class NotFinal(MirrorError):
    """The authorization's opening could still be taken back, and this gateway waits until it cannot."""

    code = "not_final"


@dataclass(frozen=True, slots=True)
class Moment:
    """One look at the mirror. `now`: the chain may run ahead of this clock; its time decides what has ended."""

    now: int  # seconds
    final: int  # height


class Standings:
    """Standings by authorization and version, as the mirror has them. Safe for several threads."""

    def __init__(
        self,
        mirror: Engine,
        policies: Mapping[Hash32, Policy],
        signer: Address,
        *,
        finality: Finality = "seen",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`policies` by digest; `signer` is the gateway's key: the provider's wallet, or a session key of it.

        `finality` final: an authorization serves once its opening cannot be taken back any more.
        """
        self._mirror, self._policies, self._signer = mirror, policies, signer
        self._finality, self._clock = finality, clock
        self._known: dict[tuple[Hash32, Hash32], Standing] = {}
        self._opened: dict[Hash32, int] = {}  # authorization → block
        self._digest = b""
        self._kept: Connection | None = None
        self._lock = threading.Lock()

    def age(self) -> int:
        """Seconds since the mirror last stood at the chain's head."""
        with self._mirror.connect() as connection:
            return int(time.time()) - queries.checked_at(connection)

    def look(self) -> Moment:
        """Where the mirror stands. Raises MirrorBehind if it has not been at the chain's head of late."""
        with self._lock:
            digest, timestamp, final, checked_at = self._cursor()
        age = int(time.time()) - checked_at
        if age > MIRROR_SECONDS:
            raise MirrorBehind(f"the mirror last stood at the chain's head {age} s ago; nothing is served by it")
        with self._lock:
            # The digest is of all that was ever applied: as long as it is the same, so is everything read from it.
            if digest != self._digest or len(self._known) > MOST:
                self._known, self._opened, self._digest = {}, {}, digest
        return Moment(max(int(self._clock()), timestamp), final)

    def _cursor(self) -> tuple[Any, ...]:
        """Asked for every use, so over a connection that is kept: taking one from the pool costs five times as much."""
        if self._kept is None:
            self._kept = self._mirror.connect()
        try:
            with self._kept.begin():
                return ask(self._kept, 'SELECT digest, "timestamp", final, checked_at FROM "cursor"')[0]
        except BaseException:
            kept, self._kept = self._kept, None
            with suppress(Exception):
                kept.close()
            raise

    def close(self) -> None:
        with self._lock:
            if self._kept is not None:
                self._kept.close()
                self._kept = None

    def of(self, authorization_id: Hash32, version: Hash32, moment: Moment) -> Standing:
        """Raises NotFound for an authorization, version or policy that this gateway does not serve, and NotFinal."""
        known = self._known.get((authorization_id, version))
        if known is None:
            digest = self._digest
            with self._mirror.connect() as connection:
                row = queries.authorization(connection, authorization_id)
                known = self._read(connection, row, version)
            with self._lock:
                if digest == self._digest:
                    self._known[authorization_id, version] = known
                    self._opened[authorization_id] = row["opened"]
        opened = self._opened.get(authorization_id, 0)
        if self._finality == "final" and opened > moment.final:
            words = f"authorization {authorization_id} was opened in block {opened}, final is block {moment.final}"
            raise NotFinal(f"{words}; ask again in a while", block=opened)
        return known

    def _read(self, connection: Connection, row: Row, version: Hash32) -> Standing:
        terms = queries.terms_of(row)
        policy = self._policies.get(terms.scope.policy_hash)
        if policy is None:
            raise NotFound(f"this gateway does not have the policy {terms.scope.policy_hash} of the terms")
        parties = [
            queries.one(connection, schema.participants, "participant", space=row["space"], wallet=wallet)
            for wallet in (terms.provider, terms.consumer, terms.metering_agent)
            if wallet != ZERO_ADDRESS
        ]
        found = queries.one(connection, schema.versions, "version", version=version)
        own = None  # the gateway's key, if it is not the provider's own
        if self._signer != terms.provider:
            own = session_keys(connection, terms.provider).get(self._signer, Key(0, 0))
        return Standing(
            authorization_id=row["authorization"],
            product=found["product"],
            version=version,
            version_status=found["status"],
            terms=terms,
            card=queries.rate_card(connection, terms.rate_card),
            policy=policy,
            status=row["status"],
            ended_how=row["ended_how"],
            ended_at=row["ended_at"],
            reserved=row["reserved"] - row["thawing"],
            suspended=any(party["suspended"] for party in parties),
            approved_until=queries.approved_until(connection, row["authorization"]),
            parents_end=queries.parents_end(connection, terms),
            credentialed_until=_credentialed_until(connection, row, policy),
            signer_cap=None if own is None else own.max_due,
            signer_until=None if own is None else own.expiry,
            agents_until={key: found.expiry for key, found in session_keys(connection, terms.consumer).items()},
        )


class Key(NamedTuple):
    """A session key that is not revoked."""

    expiry: int  # seconds, inclusive
    max_due: int  # token units


def session_keys(connection: Connection, wallet: Address) -> dict[Address, Key]:
    """Keys that may sign for a wallet; some may have expired."""
    table = schema.session_keys
    query = select(table.c.key, table.c.expiry, table.c.max_due).where(
        table.c.wallet == wallet, table.c.revoked_at == 0, schema.holds(table)
    )
    return {row.key: Key(row.expiry, row.max_due) for row in connection.execute(query)}


def _credentialed_until(connection: Connection, row: Row, policy: Policy) -> int | None:
    """When the first of the credentials that the policy asks for runs out; None if it asks for none."""
    table, first = schema.credentials, None
    for party, types in policy.credentials.items():
        for type_ in types:
            query = select(table.c.valid_until).where(
                table.c.space == row["space"],
                table.c.wallet == row[party],
                table.c.credential_type == type_,
                table.c.revoked == 0,
                schema.holds(table),
            )
            until = connection.execute(query).scalar() or 0
            first = until if first is None else min(first, until)
    return first
