"""`sluice product`: data products and their versions, by digest."""

import secrets
from pathlib import Path
from typing import Any

import click

from ledger.cli.app import App, pass_app, short
from ledger.cli.space import file_digest
from ledger.core import codes
from ledger.core.errors import VerificationFailed
from ledger.core.hashing import ALGORITHMS, canonical_json, content_digests, file_chunks, sha256
from ledger.core.ids import hash_of, parse_hash

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def product() -> None:
    """Data products 数据产品: published by the digest of their content, never changed."""


def _metadata_digest(app: App, path: Path) -> str:
    """SHA-256 of the RFC 8785 form: the same facts give the same digest, however the file is laid out."""
    return hash_of(sha256(canonical_json(app.require_file(path))))


@product.command()
@click.option("--space", "space_id", required=True)
@click.option("--metadata", type=_FILE, required=True, help="JSON; only its digest goes on chain.")
@pass_app
def register(app: App, space_id: str, metadata: Path) -> None:
    """Register a product in a space. Provider only.

    \b
    Example:  sluice --wallet provider.json product register --space 0x… --metadata weather.json
    """
    arguments = {
        "space": parse_hash(space_id, "space"),
        "salt": hash_of(secrets.token_bytes(32)),
        "metadata": _metadata_digest(app, metadata),
    }
    done = app.write("product.register", arguments)
    app.show_write(done, product=done["result"])


@product.command()
@click.argument("product_id")
@click.option("--file", "content", type=_FILE, required=True, help="The content; SHA-256 and SM3 go on chain.")
@click.option("--metadata", type=_FILE, required=True)
@click.option("--policy", type=_FILE, required=True, help="ODRL policy; its digest goes on chain.")
@click.option("--parent", "parents", multiple=True, help="A version it was derived from; may be given again.")
@pass_app
def publish(app: App, product_id: str, content: Path, metadata: Path, policy: Path, parents: tuple[str, ...]) -> None:
    """Publish a version: the content by its digests.

    \b
    Example:  sluice --wallet provider.json product publish 0x… --file hourly.csv --metadata m.json --policy p.json
    """
    found = content_digests(file_chunks(content))
    digests: list[dict[str, Any]] = [
        {"algorithm": algorithm, "value": hash_of(value)} for algorithm, value in found.items()
    ]
    arguments = {
        "product": parse_hash(product_id, "product"),
        "digests": digests,
        "metadata": _metadata_digest(app, metadata),
        "policyHash": file_digest(policy),
        "parents": sorted(parse_hash(parent, "parent") for parent in parents),
    }
    done = app.write("product.publish", arguments)
    shown = {ALGORITHMS[d["algorithm"]]: d["value"] for d in digests}
    app.show_write(done, version=done["result"], policyHash=arguments["policyHash"], digests=shown)


@product.command()
@click.argument("version")
@click.argument("file", type=_FILE)
@pass_app
def check(app: App, version: str, file: Path) -> None:
    """Is FILE what VERSION says it is? Compares every published digest.

    \b
    Example:  sluice product check 0x… hourly.csv
    """
    published = app.get(f"/v1/versions/{parse_hash(version, 'version')}")["digests"]
    found = content_digests(file_chunks(file), [d["algorithm"] for d in published])
    for digest in published:
        if hash_of(found[digest["algorithm"]]) != digest["value"]:
            name = ALGORITHMS[digest["algorithm"]]
            raise VerificationFailed(f"{file} is not version {version}: its {name} differs", algorithm=name)
    app.show({"holds": True, "version": version}, lambda: click.echo(f"✓ {file} is version {short(version)}"))


def _withdraw(app: App, operation: str, version: str, reason: str) -> None:
    arguments = {"version": parse_hash(version, "version"), "reason": codes.code("reasons", reason).number}
    app.show_write(app.write(operation, arguments))


@product.command()
@click.argument("version")
@click.option("--reason", default="NONE", show_default=True)
@pass_app
def retire(app: App, version: str, reason: str) -> None:
    """Take a version off the list: no new authorizations, those open go on.

    \b
    Example:  sluice --wallet provider.json product retire 0x…
    """
    _withdraw(app, "product.retire", version, reason)


@product.command()
@click.argument("version")
@click.option("--reason", default="QUALITY", show_default=True)
@pass_app
def recall(app: App, version: str, reason: str) -> None:
    """Withdraw a version for cause: nothing is served from it any more.

    \b
    Example:  sluice --wallet provider.json product recall 0x… --reason QUALITY
    """
    _withdraw(app, "product.recall", version, reason)


@product.command(name="list")
@click.option("--space", "space_id")
@pass_app
def list_(app: App, space_id: str | None) -> None:
    """Products, of one space or all.

    \b
    Example:  sluice product list
    """
    items: list[dict[str, Any]] = app.all("/v1/products", space=space_id)
    columns = ("product", "provider", "space")
    app.show(items, lambda: app.table("Products 数据产品", columns, ([i[c] for c in columns] for i in items)))


@product.command()
@click.argument("product_id")
@pass_app
def show(app: App, product_id: str) -> None:
    """One product with its versions.

    \b
    Example:  sluice product show 0x…
    """
    found = parse_hash(product_id, "product")
    versions = app.all("/v1/versions", product=found)
    app.show(app.get(f"/v1/products/{found}") | {"versions": versions})
