"""A provider's log, brought back from the consumer's copy: the same leaves, the same tree."""

from sqlalchemy import Engine

from ledger.core.database import writing
from ledger.core.errors import Conflict, NotFound, VerificationFailed
from ledger.core.signing import is_signed_by
from ledger.core.terms import AuthorizationTerms, UsageHead
from ledger.core.typed_data import Domain
from ledger.metering import heads
from ledger.metering.log import UsageLog, read_entries, receipt_of

PAGE = 1_000  # leaves


def restore_log(copy: Engine, usage: Engine, terms: AuthorizationTerms, domain: Domain) -> UsageHead:
    """Copies the leaves that follow one another, and the heads both signed; the head over what was restored.

    Every leaf must carry the provider's receipt, or stand under a head it signed.

    Raises:
        Conflict: there is a log already, with other leaves.
        NotFound: the copy has nothing.
        VerificationFailed: a leaf is not the provider's word, or the tree is not the one of the last signed head.
    """
    id_ = terms.digest(domain)
    log = UsageLog(usage, id_)
    if len(log):
        raise Conflict(f"there is a log of {len(log)} leaves for {id_} already; it is not overwritten")
    with copy.connect() as connection:
        signed = heads.read(connection, id_)
    for head in signed:
        if not is_signed_by(terms.provider, head.head, domain, head.provider_signature):
            raise VerificationFailed(f"the head of {head.head.size} leaves is not this provider's")
    answered = max((head.head.size for head in signed), default=0)
    while True:
        with copy.connect() as connection:
            entries = read_entries(connection, id_, len(log), PAGE)
        following = [entry for n, entry in enumerate(entries, len(log)) if entry.leaf.index == n]
        for entry in following:
            if entry.signature is None:
                holds = entry.leaf.index < answered
            else:
                holds = is_signed_by(terms.provider, receipt_of(entry.leaf), domain, entry.signature)
            if not holds:
                raise VerificationFailed(f"leaf {entry.leaf.index} is not this provider's word", leaf=entry.leaf.index)
        if not following:
            break
        log.append_all(following)
    if not len(log):
        raise NotFound(f"the copy has no leaves of {id_}")
    mine = [head for head in signed if head.head.size <= len(log)]
    if mine and log.head(mine[-1].head.size) != mine[-1].head:
        raise VerificationFailed(f"the restored leaves are not those of the head of {mine[-1].head.size}")
    with writing(usage) as connection:
        log.hold(connection)
        for head in mine:
            heads.put(connection, head)
        acknowledged = [head.head.units for head in mine if head.consumer_signature]
        if acknowledged:
            log.agree(connection, acknowledged=acknowledged[-1])
    return log.head()
