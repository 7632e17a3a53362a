"""The ledger from Python: every read and write of the API, typed; sign in with a wallet, stream events.

    from ledger.client import LedgerClient

    with LedgerClient("http://127.0.0.1:8480") as ledger:
        for row in ledger.every(ledger.authorizations, consumer="0x…", status="OPEN"):
            print(row["authorization"], row["due"])

`client` is written by hand; `routes` and `types` come from the API's description (`make client`).
"""

from ledger.client.client import LedgerClient, ServerDown, ServerProblem

__all__ = ["LedgerClient", "ServerDown", "ServerProblem"]
