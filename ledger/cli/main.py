"""`sluice`: every step of an exchange, by hand."""

import json
import os
import shlex
import sys
import traceback
from pathlib import Path
from typing import Any

import click
from sqlalchemy.exc import SQLAlchemyError

from ledger.cli import (
    account,
    agent,
    audit,
    authorization,
    bill,
    demo,
    events,
    gateway,
    head,
    mcp,
    node,
    price,
    product,
    report,
    settle,
    space,
    use,
    wallet,
    watch,
)
from ledger.cli.app import App, pass_app
from ledger.config import settings
from ledger.core.errors import SluiceError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--home", help="Folder of this installation: deployment.json, mirror.db, usage.db. [SLUICE_HOME]")
@click.option("--rpc", help="A node's JSON-RPC, for deploy and mirror. [SLUICE_RPC]")
@click.option("--api", help="The Sluice server. [SLUICE_API]")
@click.option("--wallet", "wallet_path", type=click.Path(path_type=Path), help="Keystore file of who acts.")
@click.option("--password-file", type=click.Path(path_type=Path), help="File with the keystore's password (mode 600).")
@click.option("--json", "as_json", is_flag=True, help="Results as JSON on one line.")
@click.option("--yes", "assume_yes", is_flag=True, help="Sign without asking.")
@click.version_option(package_name="sluice-ledger")
@click.pass_context
def cli(
    context: click.Context,
    home: str | None,
    rpc: str | None,
    api: str | None,
    wallet_path: Path | None,
    password_file: Path | None,
    as_json: bool,
    assume_yes: bool,
) -> None:
    """Sluice 数据计量账本 · a ledger for metered data exchange.

    \b
    A first look:  make demo
    By hand:       sluice --wallet operator.json space create --policy rules.md
    """
    if context.obj is None:  # a shell hands its own to every command
        context.obj = App(settings(home, rpc, api), as_json, wallet_path, password_file, assume_yes)
        context.call_on_close(context.obj.close)


@cli.command()
@pass_app
def shell(app: App) -> None:
    """Commands from standard input, one a line, with one unlocked wallet.

    \b
    Example:  echo 'space list' | sluice --wallet provider.json shell
    """
    failed = False
    prompt = sys.stdin.isatty()
    while True:
        if prompt:
            click.echo("sluice> ", nl=False, err=True)
        line = sys.stdin.readline()
        if not line or line.strip() in ("exit", "quit"):
            break
        if line.strip():
            failed |= bool(run(shlex.split(line, comments=True), app))
    if failed and not prompt:
        raise SystemExit(1)


@cli.command()
@click.argument("url")
@pass_app
def connect(app: App, url: str) -> None:
    """In a shell: use the server at URL from now on.

    \b
    Example:  connect http://127.0.0.1:8480
    """
    app.connect(url)
    app.show({"api": url})


def run(arguments: list[str], app: App | None = None) -> int:
    """Runs one command; errors become one sentence (or one JSON object) and an exit code."""
    as_json = app.as_json if app else "--json" in arguments
    try:
        # Outside of its standalone mode click returns the exit code of a command that ended itself.
        ended = cli.main(arguments, prog_name="sluice", standalone_mode=False, obj=app)
    except SluiceError as problem:
        return _report(as_json, problem.code, problem.message, problem.details)
    except click.ClickException as problem:
        if not as_json and isinstance(problem, click.UsageError):
            problem.show()
            return 2
        return _report(as_json, "input_invalid", problem.format_message(), {}, 2)
    except (click.Abort, KeyboardInterrupt):
        return _report(as_json, "aborted", "stopped", {})
    except SQLAlchemyError as problem:
        first = str(getattr(problem, "orig", problem)).splitlines()[0]
        return _report(as_json, "database_error", f"the database refused: {first}", {})
    except BrokenPipeError:
        return 1
    except Exception as problem:
        # Our mistake, not the caller's: say so in one line, keep the trace for who mends it.
        if os.environ.get("SLUICE_DEBUG"):
            traceback.print_exc()
        return _report(as_json, "unforeseen", f"{type(problem).__name__}: {problem}; SLUICE_DEBUG=1 shows where", {})
    return ended if isinstance(ended, int) else 0


def _report(as_json: bool, code: str, message: str, details: dict[str, Any], status: int = 1) -> int:
    if as_json:
        error = {"code": code, "message": message, "details": details}
        click.echo(json.dumps({"error": error}, ensure_ascii=False, default=str))
    else:
        click.echo(f"✗ {message} [{code}]", err=True)
    return status


for group in (
    account.account,
    account.share,
    account.payment,
    agent.agent,
    audit.audit,
    authorization.authorization,
    bill.bill,
    demo.demo,
    events.events,
    events.webhook,
    head.head,
    mcp.mcp,
    node.deploy_command,
    gateway.gateway,
    watch.watch,
    node.mirror,
    node.database,
    node.transaction,
    price.price,
    product.product,
    report.report,
    settle.settle,
    space.participant,
    space.space,
    use.use,
    wallet.wallet,
):
    cli.add_command(group)


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
