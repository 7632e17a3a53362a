"""A small world for tests: a real chain, deployed contracts, parties with keys, and the steps of an exchange."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from coincurve import PrivateKey
from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_typing import Hash32 as Digest

from ledger.chain.client import Chain, NodeError
from ledger.chain.deploy import Deployment, deploy
from ledger.chain.operations import encode
from ledger.chain.prepared import PreparedTransaction, prepare
from ledger.chain.send import Receipt, broadcast, wait
from ledger.core import codes
from ledger.core.ids import ZERO_HASH, Address, Hash32, checksum, hash_of, raw
from ledger.core.merkle import Tree
from ledger.core.money import currency_token
from ledger.core.ratecard import MAX_UNITS, Meter, RateCard, Split, Tier
from ledger.core.siwe import personal_digest
from ledger.core.terms import INVOICED, Acceptance, Approval, AuthorizationTerms, Offer, Quad, Scope, UsageHead
from ledger.core.typed_data import Domain, Message

DAY = 24 * 3600
POLICY = '{"meters": ["calls", "rows"]}'
NONE: Quad = (0, 0, 0, 0)


def digest(text: str) -> Hash32:
    return hash_of(hashlib.sha256(text.encode()).digest())


@dataclass(frozen=True)
class Key:
    """A signer for tests, from a name: the same key in every run."""

    account: LocalAccount

    @staticmethod
    def named(name: str) -> "Key":
        return Key(Account.from_key(raw(digest(f"test key {name}"))))

    @property
    def address(self) -> Address:
        return Address(self.account.address.lower())

    def sign(self, message: Message, domain: Domain) -> str:
        signed = PrivateKey(bytes(self.account.key)).sign_recoverable(raw(message.digest(domain)), hasher=None)
        return "0x" + signed[:64].hex() + ("1b", "1c")[signed[64]]

    def sign_text(self, text: str) -> str:
        """EIP-191."""
        signed = self.account.unsafe_sign_hash(Digest(raw(personal_digest(text))))
        return "0x" + bytes(signed.signature).hex()

    def sign_transaction(self, prepared: PreparedTransaction) -> str:
        fields = prepared.unsigned()
        if prepared.to is not None:
            fields["to"] = checksum(prepared.to)
        return "0x" + bytes(self.account.sign_transaction(fields).raw_transaction).hex()


CARD_METERS = (
    Meter(1, 10, (Tier(100, 10_000), Tier(MAX_UNITS, 6_000))),
    Meter(1000, 0, (Tier(MAX_UNITS, 2_800_000),)),
)


@dataclass
class World:
    """Deployed contracts and parties on one chain."""

    chain: Chain
    deployment: Deployment
    operator: Key = field(default_factory=lambda: Key.named("operator"))
    provider: Key = field(default_factory=lambda: Key.named("provider"))
    consumer: Key = field(default_factory=lambda: Key.named("consumer"))
    holder: Key = field(default_factory=lambda: Key.named("holder"))
    stranger: Key = field(default_factory=lambda: Key.named("stranger"))
    space: Hash32 = ZERO_HASH
    product: Hash32 = ZERO_HASH
    version: Hash32 = ZERO_HASH
    salt: int = 0
    heads: dict[tuple[Hash32, int], UsageHead] = field(default_factory=dict)

    @classmethod
    def on(cls, chain: Chain, *, coin: int = 10**20) -> Self:
        """Deploys everything. Each party gets this much native coin, in wei."""
        operator = Key.named("operator")
        _give(chain, operator.address, coin)
        world = cls(chain, deploy(chain, operator.address, operator.sign_transaction, demo_token=True))
        for key in (world.provider, world.consumer, world.holder, world.stranger):
            _give(chain, key.address, coin)
        world._registries()
        return world

    # ------------------------------------------------------------------------------------------- chain

    def send(self, who: Key, operation: str, **arguments: Any) -> Receipt:
        """Prepares (so a refusal is raised as Reverted), signs, sends, waits."""
        prepared = prepare(self.chain, self.deployment, operation, arguments, who.address)
        return wait(self.chain, broadcast(self.chain, who.sign_transaction(prepared)))

    def send_unchecked(self, who: Key, operation: str, **arguments: Any) -> Receipt:
        """Without simulation: what a transaction does when the chain moved after it was signed."""
        call = encode(self.deployment, operation, arguments)
        prepared = PreparedTransaction(
            operation=operation,
            chain_id=self.deployment.chain_id,
            sender=who.address,
            to=call.to,
            data="0x" + call.data.hex(),
            nonce=self.chain.nonce(who.address),
            gas=2_000_000,
            max_fee_per_gas=10**11,
            max_priority_fee_per_gas=0,
            summary=call.summary,
            result=None,
        )
        return wait(self.chain, broadcast(self.chain, who.sign_transaction(prepared)))

    def read(self, contract: str, function: str, *arguments: Any) -> Any:
        return self.deployment.read(self.chain, contract, function, *arguments)

    def now(self) -> int:
        """The chain's own time, which moving it and undoing that take away from this clock's."""
        self.chain.rpc("evm_mine")
        block = self.chain.block("latest")
        assert block is not None
        return block.timestamp

    def pass_time(self, seconds: int) -> None:
        self.chain.rpc("evm_increaseTime", seconds)
        self.chain.rpc("evm_mine")

    # -------------------------------------------------------------------------------------- registries

    def _registries(self) -> None:
        salt = digest("world")
        made = prepare(
            self.chain,
            self.deployment,
            "space.create",
            {"salt": salt, "policyDigest": digest("rules"), "codeLists": codes.digest()},
            self.operator.address,
        )
        self.space = made.result
        wait(self.chain, broadcast(self.chain, self.operator.sign_transaction(made)))
        for key, roles in ((self.provider, ["provider"]), (self.consumer, ["consumer"])):
            self.send(
                self.operator,
                "participant.admit",
                space=self.space,
                wallet=key.address,
                roles=codes.bits("roles", roles),
                digest=digest("who"),
            )
        self.product, self.version = self.publish("one", b"time,value\n1,2\n")

    def publish(self, name: str, content: bytes) -> tuple[Hash32, Hash32]:
        """A product of the provider with one version."""
        arguments: dict[str, Any] = {"space": self.space, "salt": digest(name), "metadata": digest(f"metadata {name}")}
        made = prepare(self.chain, self.deployment, "product.register", arguments, self.provider.address)
        wait(self.chain, broadcast(self.chain, self.provider.sign_transaction(made)))
        product = made.result
        arguments = {
            "product": product,
            "digests": [
                {"algorithm": 0x12, "value": hash_of(hashlib.sha256(content).digest())},
                {"algorithm": 0x534D, "value": hash_of(hashlib.new("sm3", content).digest())},
            ],
            "metadata": digest(f"metadata {name}"),
            "policyHash": digest(POLICY),
            "parents": [],
        }
        made = prepare(self.chain, self.deployment, "product.publish", arguments, self.provider.address)
        wait(self.chain, broadcast(self.chain, self.provider.sign_transaction(made)))
        return product, made.result

    # ------------------------------------------------------------------------------------------- terms

    @property
    def token(self) -> Address:
        return self.deployment.address("DemoYuan")

    def card(self, *, invoiced: bool = False, meters: Sequence[Meter] = CARD_METERS) -> RateCard:
        return RateCard(Address(currency_token("CNY")) if invoiced else self.token, 6, tuple(meters))

    def split(self) -> Split:
        return Split.of([(self.holder.address, 3500), (self.provider.address, 5000), (self.operator.address, 1500)])

    def terms(self, *, invoiced: bool = False, **changes: Any) -> AuthorizationTerms:
        """Registered card and split, pinned version, open for ten days; `changes` replace fields of terms or scope."""
        card = changes.pop("card", None) or self.card(invoiced=invoiced)
        self.send_once("price.register-card", card=card.as_json())
        self.send_once("price.register-split", shares=self.split().as_json())
        self.salt += 1
        scope = Scope(
            space=self.space,
            code_lists=codes.digest(),
            product=self.product,
            version=self.version,
            policy_hash=digest(POLICY),
            purposes=0b11,
            modalities=0b11,
            rights=1,
            credit_units=NONE,
        )
        now = self.now()
        terms = AuthorizationTerms(
            scope=scope,
            provider=self.provider.address,
            consumer=self.consumer.address,
            token=card.token,
            rate_card=card.id(),
            split=self.split().id(),
            max_units=(10_000, 1_000_000, 0, 0),
            valid_from=now - 60,
            valid_until=now + 10 * DAY,
            thaw_seconds=DAY,
            revoke_grace=0,
            flags=INVOICED if invoiced else 0,
            salt=digest(f"salt {self.salt}"),
        )
        scope_fields = {k: changes.pop(k) for k in list(changes) if k in Scope.__dataclass_fields__}
        return replace(terms, scope=replace(scope, **scope_fields), **changes)

    def send_once(self, operation: str, **arguments: Any) -> None:
        """Registering content again changes nothing: cards and splits."""
        self.send(self.provider, operation, **arguments)

    def domain(self, terms: AuthorizationTerms) -> Domain:
        return self.deployment.domain(terms.ledger)

    def id(self, terms: AuthorizationTerms) -> Hash32:
        return terms.digest(self.domain(terms))

    def fund(self, amount: int, owner: Key | None = None) -> None:
        """Free money in the consumer's account."""
        owner = owner or self.consumer
        spender = self.deployment.address("UsageLedger")
        self.send(owner, "token.mint", to=owner.address, amount=str(amount))
        self.send(owner, "token.approve", spender=spender, amount=str(amount))
        self.send(owner, "account.deposit", owner=owner.address, token=self.token, amount=str(amount))

    def opening(self, terms: AuthorizationTerms, reserve: int = 0, *, offer: Offer | None = None) -> dict[str, Any]:
        domain = self.domain(terms)
        acceptance = Acceptance(authorization_id=self.id(terms), reserve=reserve, deadline=self.now() + DAY)
        return {
            "terms": terms.as_json(),
            "offer": offer.as_json() if offer else None,
            "acceptance": acceptance.as_json(),
            "providerSignature": self.provider.sign(offer or terms, domain),
            "consumerSignature": self.consumer.sign(terms, domain),
            "acceptanceSignature": self.consumer.sign(acceptance, domain),
        }

    def approved(self, terms: AuthorizationTerms, asked: Sequence[tuple[Key, int]], until: int) -> dict[str, Any]:
        """What an opening adds where the terms ask for these approvals (key, type), valid until then."""
        approvals = []
        for key, approval_type in asked:
            approval = Approval(
                scope_hash=hash_of(terms.scope.struct_hash()),
                provider=terms.provider,
                consumer=terms.consumer,
                approval_type=approval_type,
                document_hash=digest("document"),
                valid_until=until,
            )
            approvals.append(
                {
                    "approver": key.address,
                    "approvalType": approval_type,
                    "documentHash": approval.document_hash,
                    "validUntil": until,
                    "signature": key.sign(approval, self.domain(terms)),
                }
            )
        approvers = [{"approver": key.address, "approvalType": kind} for key, kind in asked]
        return {"approvers": approvers, "approvals": approvals}

    def open(self, reserve: int = 0, **changes: Any) -> AuthorizationTerms:
        """An open authorization with this reservation, funded."""
        terms = self.terms(**changes)
        if reserve:
            self.fund(reserve)
        self.send(self.stranger, "authorization.open", opening=self.opening(terms, reserve))
        return terms

    # ------------------------------------------------------------------------------------------- heads

    def head(self, terms: AuthorizationTerms, size: int, units: Quad, **changes: Any) -> UsageHead:
        """A head over the test log: leaf n is SHA-256 of its number, whatever the units."""
        head = UsageHead(
            authorization_id=self.id(terms),
            size=size,
            units=units,
            credits=0,
            as_of=self.now() - 1,
            root=hash_of(log_tree(size).root()),
        )
        return replace(head, **changes)

    def settlement(
        self, terms: AuthorizationTerms, head: UsageHead, settled: int = 0, **changes: Any
    ) -> dict[str, Any]:
        """`settled`: the size of the head that is settled, of which an earlier call made a settlement."""
        domain = self.domain(terms)
        self.heads[head.authorization_id, head.size] = head
        previous = self.heads[head.authorization_id, settled] if settled else None
        proof = log_tree(head.size).consistency(min(settled, head.size))
        return {
            "terms": terms.as_json(),
            "previous": previous.as_json() if previous else None,
            "head": head.as_json(),
            "providerSignature": self.provider.sign(head, domain),
            "consumerSignature": self.consumer.sign(head, domain),
            "consistency": [hash_of(p) for p in proof],
        } | changes

    def settle(self, terms: AuthorizationTerms, size: int, units: Quad, settled: int = 0, **changes: Any) -> Receipt:
        head = self.head(terms, size, units, **changes)
        return self.send(self.stranger, "settle.one", settlement=self.settlement(terms, head, settled))

    def last(self, terms: AuthorizationTerms) -> dict[str, Any] | None:
        """The largest head of which a settlement was made, as JSON."""
        found = [head for (id_, _), head in sorted(self.heads.items()) if id_ == self.id(terms)]
        return found[-1].as_json() if found else None

    # ------------------------------------------------------------------------------------------- reads

    def free(self, owner: Key | None = None) -> int:
        return int(self.read("UsageLedger", "freeOf", (owner or self.consumer).address, self.token))

    def reservation(self, terms: AuthorizationTerms) -> dict[str, int]:
        found: dict[str, int] = self.read("UsageLedger", "reservationOf", raw(self.id(terms)))
        return found

    def state(self, terms: AuthorizationTerms) -> dict[str, Any]:
        found: dict[str, Any] = self.read(terms.ledger, "authorizationOf", raw(self.id(terms)))
        return found

    def settled(self, terms: AuthorizationTerms, size: int) -> bool:
        """Is the head of this size, of which a settlement was made, the one the ledger holds?"""
        head = self.heads[self.id(terms), size]
        return bool(self.state(terms)["headDigest"] == head.digest(self.domain(terms)))

    def ledger_balance(self) -> int:
        return int(self.read("DemoYuan", "balanceOf", self.deployment.address("UsageLedger")))


def _give(chain: Chain, address: Address, coin: int) -> None:
    if not coin:
        return
    try:
        chain.rpc("anvil_setBalance", address, hex(coin))
    except NodeError:
        chain.rpc("hardhat_setBalance", address, hex(coin))


def log_tree(size: int) -> Tree:
    return Tree(hashlib.sha256(str(n).encode()).digest() for n in range(size))
