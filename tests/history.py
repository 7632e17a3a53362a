"""Some of everything on one chain: every event our contracts have, and hundreds of settlements."""

from dataclasses import replace
from typing import Any

from ledger.chain.prepared import prepare
from ledger.chain.relay import forward_request
from ledger.chain.send import broadcast, wait
from ledger.core import codes
from ledger.core.ids import ZERO_HASH, Hash32, hash_of
from ledger.core.ratecard import Split
from ledger.core.terms import (
    FAST,
    AuthorizationTerms,
    Close,
    Offer,
    SessionKey,
    UsageCeiling,
    UsageHead,
    approvers_hash,
)
from tests.world import DAY, Key, World, digest, log_tree

ROUNDS = 36
FAR = 400 * DAY
ORGANISATION = 1  # a type of credential
RIGHTS = 1 | 4  # to pass it on is one


class History:
    """Authorizations that go their ways on one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.size: dict[Hash32, int] = {}
        self.opened: dict[str, AuthorizationTerms] = {}

    def make(self) -> None:
        self.registries()
        self.authorizations()
        for number in range(1, ROUNDS + 1):
            self.settle_all(number)
            self.between(number)
        self.invoices()
        self.family()
        self.offers()
        self.ends()
        self.subsidies()

    def send(self, who: Key, operation: str, **arguments: Any) -> None:
        self.world.send(who, operation, **arguments)

    def made(self, who: Key, operation: str, **arguments: Any) -> Any:
        """Sends it, and returns what the call returns: an id."""
        world = self.world
        prepared = prepare(world.chain, world.deployment, operation, arguments, who.address)
        wait(world.chain, broadcast(world.chain, who.sign_transaction(prepared)))
        return prepared.result

    def on(self, name: str, **more: Any) -> dict[str, Any]:
        """Arguments of what is done to an authorization."""
        return {"terms": self.opened[name].as_json(), **more}

    def head(self, name: str) -> UsageHead | None:
        """The settled one."""
        id_ = self.world.id(self.opened[name])
        return self.world.heads[id_, self.size[id_]] if self.size.get(id_) else None

    # -------------------------------------------------------------------------------------- registries

    def registries(self) -> None:
        world = self.world
        operator, here = world.operator, {"space": world.space}
        update = {"policyDigest": digest("new rules"), "codeLists": codes.digest()}
        self.send(operator, "space.update", **here, **update)
        for old, new in ((operator, world.holder), (world.holder, operator)):
            self.send(old, "space.propose-operator", **here, proposedOperator=new.address)
            self.send(new, "space.accept-operator", **here)
        for key, roles in ((world.consumer, ["provider", "consumer"]), (world.stranger, ["consumer"])):
            admitted = {"wallet": key.address, "roles": codes.bits("roles", roles), "digest": digest("who")}
            self.send(operator, "participant.admit", **here, **admitted)
        self.send(operator, "participant.suspend", **here, wallet=world.stranger.address, reason=100)
        self.send(operator, "participant.reinstate", **here, wallet=world.stranger.address)
        until = world.now() + FAR
        for key in (world.consumer, world.provider, world.stranger):
            which = {"wallet": key.address, "credentialType": ORGANISATION}
            self.send(operator, "credential.record", **here, **which, digest=digest(key.address), validUntil=until)
        which = {"wallet": world.stranger.address, "credentialType": ORGANISATION}
        self.send(operator, "credential.revoke", **here, **which, reason=100)
        product, version = world.publish("two", b"two")
        ceilings = ["1", "2", "3", str(2**128 - 1)]
        self.send(operator, "product.set-ceilings", product=product, token=world.token, ceilings=ceilings)
        self.send(world.provider, "product.retire", version=version, reason=0)
        _, version = world.publish("three", b"three")
        self.send(world.provider, "product.recall", version=version, reason=102)
        session = Key.named("session")
        named = SessionKey(wallet=world.consumer.address, key=session.address, expiry=until, max_due=2**100)
        possession = session.sign(named, world.deployment.domain("SessionKeys"))
        call = {"key": session.address, "expiry": until, "maxDue": str(2**100), "possession": possession}
        self.relayed(world.consumer, "session-key.register", **call)
        self.send(world.consumer, "session-key.revoke", key=session.address)

    def relayed(self, who: Key, operation: str, **arguments: Any) -> None:
        world = self.world
        request = forward_request(world.chain, world.deployment, operation, arguments, who.address, world.now() + 600)
        signature = who.sign(request, world.deployment.domain("Forwarder"))
        self.send(world.stranger, "relay.execute", request={"request": request.as_json(), "signature": signature})

    # ---------------------------------------------------------------------------------- authorizations

    def authorizations(self) -> None:
        world = self.world
        other = Split.of([(world.holder.address, 1), (world.provider.address, 9_999)])
        self.send(world.provider, "price.register-split", shares=other.as_json())
        for number in range(8):
            changes: dict[str, Any] = {"flags": FAST} if number % 3 == 0 else {}
            if number % 2:
                changes["split"] = other.id()
            self.opened[f"escrowed {number}"] = world.open(9_000_000, **changes)
        self.opened["poor 0"] = world.open(1_000_000)
        self.opened["poor 1"] = world.open(1_500_000, split=other.id())
        for number in range(2):
            self.opened[f"invoiced {number}"] = world.open(invoiced=True)
        self.approved()

    def approved(self) -> None:
        """One that a space and a product want to be approved."""
        world = self.world
        asked = [(world.holder, 3)]
        wanted = [{"approver": key.address, "approvalType": kind} for key, kind in asked]
        here, product = {"space": world.space}, {"product": world.product}
        self.send(world.operator, "space.set-approvers", **here, approvers=wanted)
        self.send(world.provider, "product.set-approvers", **product, approvers=wanted)
        terms = world.terms(approvers_hash=approvers_hash([(key.address, kind) for key, kind in asked]))
        opening = world.opening(terms) | world.approved(terms, asked, world.now() + FAR)
        self.send(world.stranger, "authorization.open", opening=opening)
        self.send(world.operator, "space.set-approvers", **here, approvers=[])
        self.send(world.provider, "product.set-approvers", **product, approvers=[])

    # ------------------------------------------------------------------------------------- settlements

    def row(self, name: str, size: int, **changes: Any) -> dict[str, Any]:
        terms = self.opened[name]
        id_ = self.world.id(terms)
        head = self.world.head(terms, size, (size, 24 * size, 0, 0), **changes)
        settlement = self.world.settlement(terms, head, self.size.get(id_, 0))
        self.size[id_] = size
        return settlement

    def settle_all(self, number: int) -> None:
        """One batch for each ledger; the provider is the caller of some, and some rows are bad."""
        world = self.world
        for kinds in (("escrowed", "poor"), ("invoiced",)):
            # Credits of one are more than its first uses cost, and less than the later ones.
            credits = {"escrowed 2": 500_000}
            rows = [self.row(n, number, credits=credits.get(n, 0)) for n in self.opened if n.startswith(kinds)]
            who = world.stranger
            if number % 3 == 0:
                who, rows[0]["providerSignature"] = world.provider, "0x"
            if number % 10 == 0:
                rows.insert(1, rows[0] | {"consumerSignature": rows[0]["providerSignature"]})
            self.send(who, "settle.many", settlements=rows)

    def between(self, number: int) -> None:
        world, money = self.world, {"token": self.world.token}
        if number == 6:
            for name in ("escrowed 0", "escrowed 7"):
                self.send(world.consumer, "authorization.thaw", **self.on(name, amount="8500000"))
            self.send(world.consumer, "authorization.thaw", **self.on("escrowed 1", amount="5"))
            self.send(world.consumer, "authorization.thaw", **self.on("escrowed 1", amount="0"))
        if number in (9, 30):
            self.pay_shares()
        if number == 12:
            # While more is thawing than is left, so that not all of it thaws any more.
            self.top_up(world.consumer, "escrowed 0", 3_000_000)
            self.top_up(world.consumer, "escrowed 7", 3_000_000)
            # Before anything is owed; later a part of what is owed, and all of it and more.
            self.top_up(world.stranger, "poor 0", 50_000)
        if number == 24:
            self.top_up(world.stranger, "poor 1", 90_000)
            self.top_up(world.stranger, "poor 0", 9_000_000)
        if number == 18:
            world.fund(3_000_000, world.provider)
            for amount in ("1000000", "200001"):
                self.send(world.provider, "authorization.refund", **self.on("escrowed 3", amount=amount))
            self.relayed(world.provider, "account.withdraw", **money, amount="77", to=world.holder.address)
        if number == 28:
            self.ceiling(number + 1)

    def top_up(self, who: Key, name: str, amount: int) -> None:
        self.world.fund(amount + 3, who)
        head = self.head(name)
        settled = head.as_json() if head else None
        self.send(who, "authorization.top-up", **self.on(name, settled=settled, amount=str(amount)))

    def ceiling(self, size: int) -> None:
        """A head that only the provider signed, under the consumer's ceiling."""
        world, terms = self.world, self.world.open(8_000_000)
        self.opened["under a ceiling"] = terms
        bounds = UsageCeiling(
            authorization_id=world.id(terms),
            max_units=(size, 24 * size, 0, 0),
            min_credits=0,
            max_due=2**90,
            expiry=2**40 - 1,
        )
        signed = {"ceiling": bounds.as_json(), "signature": world.consumer.sign(bounds, world.domain(terms))}
        row = self.row("under a ceiling", size) | {"ceilings": [signed], "consumerSignature": "0x"}
        self.send(world.stranger, "settle.one", settlement=row)

    def pay_shares(self) -> None:
        world = self.world
        everyone = (world.holder, world.provider, world.operator)
        for name, payees in (("escrowed 0", everyone), ("escrowed 1", everyone[:2])):
            for key in payees:
                share = {"split": self.opened[name].split, "token": world.token, "payee": key.address}
                self.send(world.stranger, "share.pay", **share)

    def invoices(self) -> None:
        world = self.world
        for number, amount in enumerate(("1", "250000", "90")):
            payment = self.on("invoiced 0", referenceHash=digest(f"bank {number}"), amount=amount)
            self.send(world.consumer, "payment.claim", **payment)
            self.send(world.provider, "payment.record", **payment)
        self.send(world.provider, "payment.reverse", **self.on("invoiced 0", referenceHash=digest("bank 1")))

    def offers(self) -> None:
        world = self.world
        terms = world.terms()
        offer = Offer.of(terms, 2, world.now() + FAR)
        for one in (terms, replace(terms, salt=digest("another"))):
            self.send(world.stranger, "authorization.open", opening=world.opening(one, offer=offer))
        for where in ("", "-invoiced"):
            self.send(world.provider, f"authorization.cancel-offer{where}", offer=offer.as_json())
        self.send(world.consumer, "authorization.cancel", terms=world.terms().as_json())

    # -------------------------------------------------------------------------------------------- ends

    def family(self) -> None:
        """A child that ends with its parent, and a fork that the parent's provider signed."""
        world = self.world
        self.opened["parent"] = parent = world.open(3_000_000, rights=RIGHTS)
        below = replace(world, provider=world.consumer, consumer=world.stranger)
        # Within the parent's time: terms begin a minute before now.
        child = below.terms(parent=world.id(parent), valid_from=parent.valid_from, valid_until=parent.valid_until)
        below.fund(1_000_000)
        approvals = below.approved(child, [(world.provider, 0)], world.now() + FAR)["approvals"]
        opening = below.opening(child, 1_000_000) | {"parents": [parent.as_json()], "approvals": approvals}
        self.send(world.holder, "authorization.open", opening=opening)
        self.opened["child"] = child
        self.send(world.stranger, "settle.one", settlement=self.row("parent", 5))
        heads = [world.heads[world.id(parent), 5]]
        heads.append(replace(heads[0], root=digest("another history")))
        signatures = [world.provider.sign(head, world.domain(parent)) for head in heads]
        fork = {"wallet": world.provider.address, "heads": [h.as_json() for h in heads], "signatures": signatures}
        self.send(world.stranger, "evidence.fork", **self.on("parent"), **fork)
        self.send(world.operator, "authorization.revoke", **self.on("parent", approvers=[], reason=103))
        self.send(world.holder, "authorization.end-by-parent", child=child.as_json())

    def closing(self, name: str, grown: bool, more: int) -> dict[str, Any]:
        """Both agree on what was paid and `more`; with a newer head, or the settled one."""
        world, terms, previous = self.world, self.opened[name], self.head(name)
        size = (previous.size if previous else 0) + 2
        credits = previous.credits if previous else 0
        head = world.head(terms, size, (size, 24 * size, 0, 0), credits=credits) if grown else previous
        domain, invoiced = world.domain(terms), terms.ledger == "InvoiceLedger"
        close = Close(
            authorization_id=world.id(terms),
            head_digest=head.digest(domain) if head else ZERO_HASH,
            final_paid=(0 if invoiced else world.reservation(terms)["paid"]) + more,
            deadline=2**40 - 1,
        )
        proof = log_tree(head.size).consistency(previous.size if previous else 0) if head else []
        return {
            "terms": terms.as_json(),
            "previous": previous.as_json() if previous else None,
            "head": head.as_json() if head else None,
            "close": close.as_json(),
            "providerSignature": world.provider.sign(close, domain),
            "consumerSignature": world.consumer.sign(close, domain),
            "consistency": [hash_of(p) for p in proof],
        }

    def ends(self) -> None:
        world = self.world
        self.opened["unused"] = world.open(1_234)
        for name, grown, more in (("escrowed 2", True, 11), ("escrowed 4", False, 0), ("unused", False, 0)):
            closing = self.closing(name, grown, more)
            self.send(world.stranger, "authorization.close-together", closing=closing)
        closing = self.closing("escrowed 5", True, 1)
        world.fund(2_000_000)
        following = world.terms(supersedes=world.id(self.opened["escrowed 5"]))
        opening = world.opening(following, 2_000_000)
        self.send(world.stranger, "authorization.renew", closing=closing, opening=opening)
        self.send(world.consumer, "authorization.close", **self.on("escrowed 6", reason=101))
        self.send(world.provider, "authorization.close", **self.on("invoiced 1", reason=100))
        world.pass_time(DAY + 60)
        self.send(world.stranger, "authorization.release", **self.on("escrowed 0"))
        for name in ("escrowed 6", "invoiced 1", "parent", "child"):
            self.send(world.stranger, "authorization.finalize", **self.on(name))

    def subsidies(self) -> None:
        """A pool for what was closed: one claim, one objection, and the rest goes back."""
        world, sponsor = self.world, self.world.holder
        now = world.now()
        rule = {
            "token": world.token,
            "space": world.space,
            "shareBps": 2_500,
            "credentialType": ORGANISATION,
            "capPerConsumer": "800000",
            "validFrom": now - 100 * DAY,
            "validUntil": now + DAY,
            "claimUntil": now + 5 * DAY,
            "objectionSeconds": 60,
        }
        self.send(sponsor, "token.mint", to=sponsor.address, amount="3000000")
        spender = world.deployment.address("SubsidyPool")
        self.send(sponsor, "token.approve", spender=spender, amount="3000000")
        lists = {"products": [world.product], "splits": [], "salt": digest("pool")}
        pool = self.made(sponsor, "subsidy.create", rule=rule, amount="2000000", **lists)
        self.send(sponsor, "subsidy.fund", pool=pool, amount="1000000")
        objected = world.id(self.opened["escrowed 4"])
        self.send(sponsor, "subsidy.object", pool=pool, authorizationId=objected, reason=100)
        world.pass_time(2 * DAY)
        self.send(world.consumer, "subsidy.claim", pool=pool, **self.on("escrowed 6"))
        world.pass_time(4 * DAY)
        self.send(world.stranger, "subsidy.refund", pool=pool)
