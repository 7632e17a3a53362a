"""Every request of the API as a method. Written by `make client`: do not edit."""

from typing import Any, Literal, cast
from urllib.parse import quote

from ledger.client import types


def _headers(min_block: int | None) -> dict[str, str] | None:
    return None if min_block is None else {"Ledger-Min-Block": str(min_block)}


def _params(**asked: Any) -> dict[str, Any]:
    return {name: value for name, value in asked.items() if value is not None}


class Routes:
    """What the client can ask for; `request` is the client's."""

    def request(self, method: str, path: str, *, headers: dict[str, str] | None = None, **options: Any) -> Any:
        raise NotImplementedError

    def authorizations(
        self,
        *,
        provider: str | None = None,
        consumer: str | None = None,
        product: str | None = None,
        version: str | None = None,
        space: str | None = None,
        token: str | None = None,
        purpose: str | None = None,
        modality: str | None = None,
        status: Literal["OPEN", "ENDED", "CLOSED"] | None = None,
        ends_after: int | None = None,
        ends_before: int | None = None,
        after: str | None = None,
        limit: int | None = None,
        at_block: int | None = None,
        min_block: int | None = None,
    ) -> types.Page[types.Authorization]:
        """Authorizations, by party, product, version, space, token, purpose, modality, status or end"""
        return cast(
            "types.Page[types.Authorization]",
            self.request(
                "GET",
                "/v1/authorizations",
                headers=_headers(min_block),
                params=_params(
                    provider=provider,
                    consumer=consumer,
                    product=product,
                    version=version,
                    space=space,
                    token=token,
                    purpose=purpose,
                    modality=modality,
                    status=status,
                    ends_after=ends_after,
                    ends_before=ends_before,
                    after=after,
                    limit=limit,
                    at_block=at_block,
                ),
            ),
        )

    def authorization(
        self, authorization: str, *, at_block: int | None = None, min_block: int | None = None
    ) -> types.Authorization:
        """One authorization"""
        return cast(
            "types.Authorization",
            self.request(
                "GET",
                f"/v1/authorizations/{quote(authorization, safe='')}",
                headers=_headers(min_block),
                params=_params(at_block=at_block),
            ),
        )

    def settlements_of(
        self,
        authorization: str,
        *,
        after: str | None = None,
        limit: int | None = None,
        at_block: int | None = None,
        min_block: int | None = None,
    ) -> types.Page[types.Settlement]:
        """What was settled on it, oldest first"""
        return cast(
            "types.Page[types.Settlement]",
            self.request(
                "GET",
                f"/v1/authorizations/{quote(authorization, safe='')}/settlements",
                headers=_headers(min_block),
                params=_params(after=after, limit=limit, at_block=at_block),
            ),
        )

    def settlements(
        self,
        *,
        provider: str | None = None,
        consumer: str | None = None,
        product: str | None = None,
        space: str | None = None,
        token: str | None = None,
        first: int | None = None,
        before: int | None = None,
        after: str | None = None,
        limit: int | None = None,
        at_block: int | None = None,
        min_block: int | None = None,
    ) -> types.Page[types.Settlement]:
        """What was settled, by party, product, space, token or time, oldest first"""
        return cast(
            "types.Page[types.Settlement]",
            self.request(
                "GET",
                "/v1/settlements",
                headers=_headers(min_block),
                params=_params(
                    provider=provider,
                    consumer=consumer,
                    product=product,
                    space=space,
                    token=token,
                    first=first,
                    before=before,
                    after=after,
                    limit=limit,
                    at_block=at_block,
                ),
            ),
        )

    def payments(
        self,
        authorization: str,
        *,
        after: str | None = None,
        limit: int | None = None,
        at_block: int | None = None,
        min_block: int | None = None,
    ) -> types.Page[types.Payment]:
        """Bank payments recorded, reversed and claimed, oldest first"""
        return cast(
            "types.Page[types.Payment]",
            self.request(
                "GET",
                f"/v1/authorizations/{quote(authorization, safe='')}/payments",
                headers=_headers(min_block),
                params=_params(after=after, limit=limit, at_block=at_block),
            ),
        )

    def uses(
        self,
        *,
        authorization: str,
        purpose: str | None = None,
        modality: str | None = None,
        kind: Literal["USE", "CREDIT", "PERIOD_FEE", "NOTE", "REFUSAL"] | None = None,
        version: str | None = None,
        served_after: int | None = None,
        served_before: int | None = None,
        first: int | None = None,
        after: str | None = None,
        limit: int | None = None,
        at_block: int | None = None,
        min_block: int | None = None,
    ) -> types.Page[types.Use]:
        """The usage log of an authorization: uses, credits and refusals; at_block: what was settled then"""
        return cast(
            "types.Page[types.Use]",
            self.request(
                "GET",
                "/v1/uses",
                headers=_headers(min_block),
                params=_params(
                    authorization=authorization,
                    purpose=purpose,
                    modality=modality,
                    kind=kind,
                    version=version,
                    served_after=served_after,
                    served_before=served_before,
                    first=first,
                    after=after,
                    limit=limit,
                    at_block=at_block,
                ),
            ),
        )

    def signed_heads(
        self,
        *,
        authorization: str,
        after: str | None = None,
        limit: int | None = None,
        at_block: int | None = None,
        min_block: int | None = None,
    ) -> types.Page[types.Head]:
        """Heads of a usage log with their signatures, smallest first; at_block: what was settled then"""
        return cast(
            "types.Page[types.Head]",
            self.request(
                "GET",
                "/v1/heads",
                headers=_headers(min_block),
                params=_params(authorization=authorization, after=after, limit=limit, at_block=at_block),
            ),
        )

    def code_lists(self) -> types.CodeLists:
        """The code lists: what purposes, modalities, roles and reasons mean"""
        return cast("types.CodeLists", self.request("GET", "/v1/codes"))

    def spaces(
        self,
        *,
        operator: str | None = None,
        after: str | None = None,
        limit: int | None = None,
        at_block: int | None = None,
        min_block: int | None = None,
    ) -> types.Page[types.Space]:
        """Spaces, by operator"""
        return cast(
            "types.Page[types.Space]",
            self.request(
                "GET",
                "/v1/spaces",
                headers=_headers(min_block),
                params=_params(operator=operator, after=after, limit=limit, at_block=at_block),
            ),
        )

    def space(self, space: str, *, at_block: int | None = None, min_block: int | None = None) -> types.Space:
        """One space"""
        return cast(
            "types.Space",
            self.request(
                "GET",
                f"/v1/spaces/{quote(space, safe='')}",
                headers=_headers(min_block),
                params=_params(at_block=at_block),
            ),
        )

    def participants(
        self,
        *,
        space: str | None = None,
        wallet: str | None = None,
        role: str | None = None,
        suspended: bool | None = None,
        after: str | None = None,
        limit: int | None = None,
        at_block: int | None = None,
        min_block: int | None = None,
    ) -> types.Page[types.Participant]:
        """Participants, by space, wallet, role or suspension"""
        return cast(
            "types.Page[types.Participant]",
            self.request(
                "GET",
                "/v1/participants",
                headers=_headers(min_block),
                params=_params(
                    space=space,
                    wallet=wallet,
                    role=role,
                    suspended=suspended,
                    after=after,
                    limit=limit,
                    at_block=at_block,
                ),
            ),
        )

    def credentials(
        self,
        *,
        space: str | None = None,
        wallet: str | None = None,
        after: str | None = None,
        limit: int | None = None,
        at_block: int | None = None,
        min_block: int | None = None,
    ) -> types.Page[types.Credential]:
        """Credentials, by space or wallet"""
        return cast(
            "types.Page[types.Credential]",
            self.request(
                "GET",
                "/v1/credentials",
                headers=_headers(min_block),
                params=_params(space=space, wallet=wallet, after=after, limit=limit, at_block=at_block),
            ),
        )

    def session_keys(
        self,
        *,
        wallet: str | None = None,
        key: str | None = None,
        after: str | None = None,
        limit: int | None = None,
        at_block: int | None = None,
        min_block: int | None = None,
    ) -> types.Page[types.SessionKey]:
        """Session keys, by wallet or key"""
        return cast(
            "types.Page[types.SessionKey]",
            self.request(
                "GET",
                "/v1/session-keys",
                headers=_headers(min_block),
                params=_params(wallet=wallet, key=key, after=after, limit=limit, at_block=at_block),
            ),
        )

    def products(
        self,
        *,
        space: str | None = None,
        provider: str | None = None,
        after: str | None = None,
        limit: int | None = None,
        at_block: int | None = None,
        min_block: int | None = None,
    ) -> types.Page[types.Product]:
        """Products, by space or provider"""
        return cast(
            "types.Page[types.Product]",
            self.request(
                "GET",
                "/v1/products",
                headers=_headers(min_block),
                params=_params(space=space, provider=provider, after=after, limit=limit, at_block=at_block),
            ),
        )

    def product(self, product: str, *, at_block: int | None = None, min_block: int | None = None) -> types.Product:
        """One product"""
        return cast(
            "types.Product",
            self.request(
                "GET",
                f"/v1/products/{quote(product, safe='')}",
                headers=_headers(min_block),
                params=_params(at_block=at_block),
            ),
        )

    def versions(
        self,
        *,
        product: str | None = None,
        status: Literal["LISTED", "RETIRED", "RECALLED"] | None = None,
        after: str | None = None,
        limit: int | None = None,
        at_block: int | None = None,
        min_block: int | None = None,
    ) -> types.Page[types.Version]:
        """Versions, by product or status"""
        return cast(
            "types.Page[types.Version]",
            self.request(
                "GET",
                "/v1/versions",
                headers=_headers(min_block),
                params=_params(product=product, status=status, after=after, limit=limit, at_block=at_block),
            ),
        )

    def version(self, version: str, *, at_block: int | None = None, min_block: int | None = None) -> types.Version:
        """One version"""
        return cast(
            "types.Version",
            self.request(
                "GET",
                f"/v1/versions/{quote(version, safe='')}",
                headers=_headers(min_block),
                params=_params(at_block=at_block),
            ),
        )

    def rate_card(self, rate_card: str, *, at_block: int | None = None, min_block: int | None = None) -> types.RateCard:
        """A rate card, decoded"""
        return cast(
            "types.RateCard",
            self.request(
                "GET",
                f"/v1/rate-cards/{quote(rate_card, safe='')}",
                headers=_headers(min_block),
                params=_params(at_block=at_block),
            ),
        )

    def split(self, split: str, *, at_block: int | None = None, min_block: int | None = None) -> types.Split:
        """A split, decoded"""
        return cast(
            "types.Split",
            self.request(
                "GET",
                f"/v1/splits/{quote(split, safe='')}",
                headers=_headers(min_block),
                params=_params(at_block=at_block),
            ),
        )

    def bill(self, authorization: str, *, at_block: int | None = None, min_block: int | None = None) -> types.Bill:
        """The bill over all that is settled, derived from leaves"""
        return cast(
            "types.Bill",
            self.request(
                "GET",
                f"/v1/bills/{quote(authorization, safe='')}",
                headers=_headers(min_block),
                params=_params(at_block=at_block),
            ),
        )

    def statement_of(
        self, party: str, *, month: str, at_block: int | None = None, min_block: int | None = None
    ) -> types.Statement:
        """What a party owes and is owed in a month; an operator or auditor sees what is of its spaces"""
        return cast(
            "types.Statement",
            self.request(
                "GET",
                f"/v1/statements/{quote(party, safe='')}",
                headers=_headers(min_block),
                params=_params(month=month, at_block=at_block),
            ),
        )

    def account(self, owner: str, *, at_block: int | None = None, min_block: int | None = None) -> types.Account:
        """Free money of a wallet, by token"""
        return cast(
            "types.Account",
            self.request(
                "GET",
                f"/v1/accounts/{quote(owner, safe='')}",
                headers=_headers(min_block),
                params=_params(at_block=at_block),
            ),
        )

    def shares(
        self, split: str, token: str, *, at_block: int | None = None, min_block: int | None = None
    ) -> types.Shares:
        """What each payee of a split accrued, was sent and has left"""
        return cast(
            "types.Shares",
            self.request(
                "GET",
                f"/v1/shares/{quote(split, safe='')}/{quote(token, safe='')}",
                headers=_headers(min_block),
                params=_params(at_block=at_block),
            ),
        )

    def usage(
        self,
        *,
        by: str | None = None,
        provider: str | None = None,
        consumer: str | None = None,
        product: str | None = None,
        space: str | None = None,
        token: str | None = None,
        first: int | None = None,
        before: int | None = None,
        at_block: int | None = None,
        min_block: int | None = None,
    ) -> types.Page[types.UsageSum]:
        """What was settled, by day, product, party or token"""
        return cast(
            "types.Page[types.UsageSum]",
            self.request(
                "GET",
                "/v1/aggregates/usage",
                headers=_headers(min_block),
                params=_params(
                    by=by,
                    provider=provider,
                    consumer=consumer,
                    product=product,
                    space=space,
                    token=token,
                    first=first,
                    before=before,
                    at_block=at_block,
                ),
            ),
        )

    def purposes(
        self,
        *,
        authorization: str | None = None,
        product: str | None = None,
        at_block: int | None = None,
        min_block: int | None = None,
    ) -> types.Page[types.PurposeSum]:
        """What was used, by purpose and modality, of the authorizations you may see"""
        return cast(
            "types.Page[types.PurposeSum]",
            self.request(
                "GET",
                "/v1/aggregates/purposes",
                headers=_headers(min_block),
                params=_params(authorization=authorization, product=product, at_block=at_block),
            ),
        )

    def revenue(
        self,
        *,
        payee: str | None = None,
        token: str | None = None,
        after: str | None = None,
        limit: int | None = None,
        at_block: int | None = None,
        min_block: int | None = None,
    ) -> types.Page[types.Revenue]:
        """What each payee accrued, was sent and has left; the difference of two blocks is that of a time"""
        return cast(
            "types.Page[types.Revenue]",
            self.request(
                "GET",
                "/v1/aggregates/revenue",
                headers=_headers(min_block),
                params=_params(payee=payee, token=token, after=after, limit=limit, at_block=at_block),
            ),
        )

    def reservations(
        self,
        *,
        provider: str | None = None,
        consumer: str | None = None,
        token: str | None = None,
        after: str | None = None,
        limit: int | None = None,
        at_block: int | None = None,
        min_block: int | None = None,
    ) -> types.Page[types.Reservation]:
        """Open reservations: what is set aside, paid and left"""
        return cast(
            "types.Page[types.Reservation]",
            self.request(
                "GET",
                "/v1/aggregates/reservations",
                headers=_headers(min_block),
                params=_params(
                    provider=provider, consumer=consumer, token=token, after=after, limit=limit, at_block=at_block
                ),
            ),
        )

    def arrears(
        self,
        *,
        provider: str | None = None,
        consumer: str | None = None,
        token: str | None = None,
        after: str | None = None,
        limit: int | None = None,
        at_block: int | None = None,
        min_block: int | None = None,
    ) -> types.Page[types.Arrears]:
        """Where more is due than paid"""
        return cast(
            "types.Page[types.Arrears]",
            self.request(
                "GET",
                "/v1/aggregates/arrears",
                headers=_headers(min_block),
                params=_params(
                    provider=provider, consumer=consumer, token=token, after=after, limit=limit, at_block=at_block
                ),
            ),
        )

    def expiring(
        self,
        *,
        days: int | None = None,
        provider: str | None = None,
        consumer: str | None = None,
        after: str | None = None,
        limit: int | None = None,
        at_block: int | None = None,
        min_block: int | None = None,
    ) -> types.Page[types.Authorization]:
        """Open authorizations that end soon, the next to end first"""
        return cast(
            "types.Page[types.Authorization]",
            self.request(
                "GET",
                "/v1/aggregates/expiring",
                headers=_headers(min_block),
                params=_params(
                    days=days, provider=provider, consumer=consumer, after=after, limit=limit, at_block=at_block
                ),
            ),
        )

    def events(
        self,
        *,
        after: str | None = None,
        from_block: int | None = None,
        contract: str | None = None,
        event: str | None = None,
        about: str | None = None,
        final: bool | None = None,
        limit: int | None = None,
        at_block: int | None = None,
        min_block: int | None = None,
    ) -> types.EventPage:
        """Events in the order in which they became known, with those that were taken back; at_block: up to it"""
        return cast(
            "types.EventPage",
            self.request(
                "GET",
                "/v1/events",
                headers=_headers(min_block),
                params=_params(
                    after=after,
                    from_block=from_block,
                    contract=contract,
                    event=event,
                    about=about,
                    final=final,
                    limit=limit,
                    at_block=at_block,
                ),
            ),
        )

    def webhooks(self) -> list[types.Webhook]:
        """Your webhooks"""
        return cast("list[types.Webhook]", self.request("GET", "/v1/webhooks"))

    def register(self, body: types.WebhookRequest) -> types.NewWebhook:
        """Have events delivered: CloudEvents, signed, at least once, in order"""
        return cast("types.NewWebhook", self.request("POST", "/v1/webhooks", json=body))

    def webhook(self, webhook: str) -> types.Webhook:
        """How far one of them has come"""
        return cast("types.Webhook", self.request("GET", f"/v1/webhooks/{quote(webhook, safe='')}"))

    def remove(self, webhook: str) -> None:
        """Take one away"""
        self.request("DELETE", f"/v1/webhooks/{quote(webhook, safe='')}")

    def replay(self, webhook: str, body: types.ReplayRequest) -> types.Webhook:
        """Deliver everything after an offset again, and wake a webhook that was paused"""
        return cast("types.Webhook", self.request("POST", f"/v1/webhooks/{quote(webhook, safe='')}/replay", json=body))

    def dead_letters(self, webhook: str) -> list[types.DeadLetter]:
        """Events the receiver refused, oldest first"""
        return cast(
            "list[types.DeadLetter]", self.request("GET", f"/v1/webhooks/{quote(webhook, safe='')}/dead-letters")
        )

    def nonce(self) -> types.Nonce:
        """A nonce for the message to sign; used once, within ten minutes"""
        return cast("types.Nonce", self.request("POST", "/v1/session/nonce"))

    def session(self) -> types.Session:
        """Who is signed in"""
        return cast("types.Session", self.request("GET", "/v1/session"))

    def open_session(self, body: types.SignInRequest) -> types.NewSession:
        """A session for a message of EIP-4361, signed by the wallet it names"""
        return cast("types.NewSession", self.request("POST", "/v1/session", json=body))

    def close_session(self) -> None:
        """Sign out"""
        self.request("DELETE", "/v1/session")

    def operations(self) -> dict[str, types.OperationArguments]:
        """The writes there are, with their arguments"""
        return cast("dict[str, types.OperationArguments]", self.request("GET", "/v1/operations"))

    def deployment(self) -> types.Deployment:
        """Chain and contract addresses"""
        return cast("types.Deployment", self.request("GET", "/v1/deployment"))

    def prepare_transaction(self, body: types.PrepareRequest) -> types.PreparedTransaction:
        """An unsigned transaction, explained and simulated"""
        return cast("types.PreparedTransaction", self.request("POST", "/v1/transactions/prepare", json=body))

    def typed_data(self, body: types.TypedDataRequest) -> types.TypedData:
        """Typed data for a wallet to sign (EIP-712)"""
        return cast("types.TypedData", self.request("POST", "/v1/typed-data", json=body))

    def send(self, body: types.SendRequest) -> types.Sent:
        """Send signed bytes"""
        return cast("types.Sent", self.request("POST", "/v1/transactions", json=body))

    def transactions(
        self,
        *,
        after: str | None = None,
        blocks: int | None = None,
        at_block: int | None = None,
        min_block: int | None = None,
    ) -> types.Page[types.Transaction]:
        """Transactions that changed something here, newest first"""
        return cast(
            "types.Page[types.Transaction]",
            self.request(
                "GET",
                "/v1/transactions",
                headers=_headers(min_block),
                params=_params(after=after, blocks=blocks, at_block=at_block),
            ),
        )

    def transaction(
        self, transaction: str, *, at_block: int | None = None, min_block: int | None = None
    ) -> types.TransactionStatus:
        """What became of a transaction"""
        return cast(
            "types.TransactionStatus",
            self.request(
                "GET",
                f"/v1/transactions/{quote(transaction, safe='')}",
                headers=_headers(min_block),
                params=_params(at_block=at_block),
            ),
        )

    def health(self) -> types.Health:
        """State of node and mirror; 503 while reads are old"""
        return cast("types.Health", self.request("GET", "/v1/health"))

    def live(self) -> types.Live:
        """The process answers"""
        return cast("types.Live", self.request("GET", "/health/live"))

    def ready(self) -> types.Ready:
        """Reads are fresh: 503 while the mirror is behind, latched or cut off"""
        return cast("types.Ready", self.request("GET", "/health/ready"))

    def digest(self, *, at_block: int | None = None, min_block: int | None = None) -> types.DigestAt:
        """One hash for all that is mirrored, now or at a block: equal for equal contents"""
        return cast(
            "types.DigestAt",
            self.request("GET", "/v1/digest", headers=_headers(min_block), params=_params(at_block=at_block)),
        )
