"""`sluice wallet`: encrypted key files."""

import sys
from pathlib import Path

import click

from ledger import wallet as wallets
from ledger.cli.app import App, pass_app
from ledger.core.ids import Address, checksum


@click.group()
def wallet() -> None:
    """Encrypted key files (keystores). A key is never an argument, never in a log."""


@wallet.command(name="new")
@click.argument("file", type=click.Path(path_type=Path))
@pass_app
def new(app: App, file: Path) -> None:
    """Make a new key in a new keystore FILE.

    \b
    Example:  sluice wallet new provider.json
    """
    _made(app, file, wallets.create(file, app.password(confirm=True)))


@wallet.command(name="import")
@click.argument("file", type=click.Path(path_type=Path))
@pass_app
def import_(app: App, file: Path) -> None:
    """Put a known key into a new keystore FILE. The key is asked for, or read from a pipe.

    \b
    Example:  sluice wallet import provider.json
    """
    if sys.stdin.isatty():
        key: str = click.prompt("private key (hex)", hide_input=True, err=True)
    else:
        key = sys.stdin.readline()
    _made(app, file, wallets.import_key(file, key, app.password(confirm=True)))


@wallet.command()
@click.argument("file", type=click.Path(path_type=Path))
@pass_app
def show(app: App, file: Path) -> None:
    """The address in a keystore FILE, without opening it.

    \b
    Example:  sluice wallet show provider.json
    """
    _made(app, file, wallets.address_of(file))


def _made(app: App, file: Path, address: Address) -> None:
    app.show({"file": str(file), "address": address}, lambda: click.echo(f"{checksum(address)}  {file}"))
