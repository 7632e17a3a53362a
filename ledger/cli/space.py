"""`sluice space` and `sluice participant`: who governs, and who takes part."""

import secrets
from pathlib import Path

import click

from ledger.cli.app import App, pass_app, short
from ledger.core import codes
from ledger.core.hashing import content_digests, file_chunks
from ledger.core.ids import hash_of, parse_address, parse_hash


def file_digest(path: Path) -> str:
    """SHA-256 of a file, as an id."""
    return hash_of(content_digests(file_chunks(path))[0x12])


@click.group()
def space() -> None:
    """Spaces 数据空间: governed places where data products are exchanged."""


@space.command()
@click.option("--policy", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True)
@pass_app
def create(app: App, policy: Path) -> None:
    """Create a space under the rule book in a file; only its digest goes on chain.

    \b
    Example:  sluice --wallet operator.json space create --policy rules.md
    """
    done = app.write(
        "space.create",
        {
            "salt": hash_of(secrets.token_bytes(32)),
            "policyDigest": file_digest(policy),
            "codeLists": codes.digest(),
        },
    )
    app.show_write(done, space=done["result"])


@space.command()
@click.argument("space_id")
@click.option("--policy", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True)
@pass_app
def update(app: App, space_id: str, policy: Path) -> None:
    """Replace a space's rule book; code lists become those of this version.

    \b
    Example:  sluice --wallet operator.json space update 0x… --policy rules-2.md
    """
    arguments = {
        "space": parse_hash(space_id, "space"),
        "policyDigest": file_digest(policy),
        "codeLists": codes.digest(),
    }
    app.show_write(app.write("space.update", arguments))


@space.command(name="hand-over")
@click.argument("space_id")
@click.option("--to", "successor", help="The wallet to propose.")
@click.option("--accept", is_flag=True, help="Take over a space proposed to you.")
@pass_app
def hand_over(app: App, space_id: str, successor: str | None, accept: bool) -> None:
    """Hand a space to another operator, in two steps.

    \b
    Example:  sluice --wallet operator.json space hand-over 0x… --to 0x…
              sluice --wallet successor.json space hand-over 0x… --accept
    """
    found = parse_hash(space_id, "space")
    if accept == (successor is not None):
        raise click.UsageError("give either --to or --accept")
    if successor is not None:
        arguments = {"space": found, "proposedOperator": parse_address(successor, "to")}
        app.show_write(app.write("space.propose-operator", arguments))
    else:
        app.show_write(app.write("space.accept-operator", {"space": found}))


@space.command(name="list")
@pass_app
def list_(app: App) -> None:
    """All spaces.

    \b
    Example:  sluice space list
    """
    items = app.all("/v1/spaces")
    app.show(
        items,
        lambda: app.table("Spaces 数据空间", ("space", "operator"), ((i["space"], i["operator"]) for i in items)),
    )


@space.command()
@click.argument("space_id")
@pass_app
def show(app: App, space_id: str) -> None:
    """One space.

    \b
    Example:  sluice space show 0x…
    """
    app.show(app.get(f"/v1/spaces/{parse_hash(space_id, 'space')}"))


@click.group()
def participant() -> None:
    """Participants 参与方 of a space: admission, suspension."""


@participant.command()
@click.option("--space", "space_id", required=True)
@click.option("--wallet-address", "address", required=True)
@click.option("--role", "roles", multiple=True, required=True, help="provider, consumer, approver, auditor, …")
@click.option("--digest", default="0x" + "00" * 32, help="Salted commitment to who this is.")
@pass_app
def admit(app: App, space_id: str, address: str, roles: tuple[str, ...], digest: str) -> None:
    """Admit a wallet, or change its roles. Operator only.

    \b
    Example:  sluice --wallet operator.json participant admit --space 0x… --wallet-address 0x… --role provider
    """
    arguments = {
        "space": parse_hash(space_id, "space"),
        "wallet": parse_address(address, "wallet-address"),
        "roles": codes.bits("roles", list(roles)),
        "digest": parse_hash(digest, "digest"),
    }
    app.show_write(app.write("participant.admit", arguments))


@participant.command()
@click.option("--space", "space_id", required=True)
@click.option("--wallet-address", "address", required=True)
@click.option("--reason", default="MISUSE", show_default=True)
@pass_app
def suspend(app: App, space_id: str, address: str, reason: str) -> None:
    """Suspend a participant: it can open nothing and is served nothing, but is still paid. Operator only.

    \b
    Example:  sluice --wallet operator.json participant suspend --space 0x… --wallet-address 0x… --reason LEGAL
    """
    arguments = {
        "space": parse_hash(space_id, "space"),
        "wallet": parse_address(address, "wallet-address"),
        "reason": codes.code("reasons", reason).number,
    }
    app.show_write(app.write("participant.suspend", arguments))


@participant.command()
@click.option("--space", "space_id", required=True)
@click.option("--wallet-address", "address", required=True)
@pass_app
def reinstate(app: App, space_id: str, address: str) -> None:
    """End a suspension. Operator only.

    \b
    Example:  sluice --wallet operator.json participant reinstate --space 0x… --wallet-address 0x…
    """
    arguments = {"space": parse_hash(space_id, "space"), "wallet": parse_address(address, "wallet-address")}
    app.show_write(app.write("participant.reinstate", arguments))


@participant.command(name="list")
@click.option("--space", "space_id", required=True)
@pass_app
def list_participants(app: App, space_id: str) -> None:
    """Who takes part in a space.

    \b
    Example:  sluice participant list --space 0x…
    """
    items = app.all("/v1/participants", space=parse_hash(space_id, "space"))
    app.show(
        items,
        lambda: app.table(
            f"Participants 参与方 of {short(space_id)}",
            ("wallet", "roles", "state"),
            ((i["wallet"], ", ".join(i["roles"]), "suspended" if i["suspended"] else "active") for i in items),
        ),
    )
