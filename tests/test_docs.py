"""Words that must stay true: docs name every operation and error, readmes stay short and say the same."""

import re
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from api.app import describe
from api.problems import STATUS
from ledger.chain.decode import _SENTENCES
from ledger.chain.operations import OPERATIONS
from ledger.cli.main import cli

ROOT = Path(__file__).parents[1]


def test_every_operation_is_documented_with_who_may_call_it() -> None:
    rows = re.findall(
        r"^\| `([a-z.-]+)` \| `([^`]+)` \| (.+?) \|", (ROOT / "docs/operations.md").read_text(), re.MULTILINE
    )
    assert [name for name, _, _ in rows] == list(OPERATIONS)
    for name, function, who in rows:
        operation = OPERATIONS[name]
        assert function == f"{operation.contract or 'both ledgers'}.{operation.function}"
        assert who.strip()


def test_every_error_with_a_status_is_documented_with_it() -> None:
    text = (ROOT / "docs/errors.md").read_text()
    for code, status in STATUS.items():
        if code in ("refused",):
            continue
        (row,) = [line for line in text.splitlines() if line.startswith("|") and f"`{code}`" in line.split("|")[1]]
        assert str(status) in row, code


def test_every_route_that_is_for_some_only_is_in_the_api_page() -> None:
    page = (ROOT / "docs/api.md").read_text()
    paths = describe(FastAPI())["paths"]
    for path, verbs in paths.items():
        for verb, operation in verbs.items():
            if "security" in operation:
                last = [part for part in path.split("/") if part and not part.startswith("{")][-1]
                assert last.rstrip("s") in page, (verb, path)
    for option in re.findall(r'add_argument\(\s*"(--[a-z-]+)"', (ROOT / "api/__main__.py").read_text()):
        said = page + (ROOT / "docs/mirror.md").read_text() + (ROOT / "README.md").read_text()
        assert option in said or option in ("--json",), option


@pytest.mark.parametrize("name", ["README.md", "README.zh.md"])
def test_a_readme_is_short_and_its_commands_exist(name: str) -> None:
    text = (ROOT / name).read_text()
    assert len(text.splitlines()) <= 150
    for line in re.findall(r"^sluice (.+)$", text.replace("\\\n", ""), re.MULTILINE):
        words = [w for w in re.sub(r"--(home|rpc|wallet) \S+", "", line.split("#")[0].split("&")[0]).split() if w]
        command: Any = cli
        for word in words[:2]:
            if hasattr(command, "commands") and not word.startswith("-"):
                assert word in command.commands, line
                command = command.commands[word]
        options = {o for p in command.params for o in p.opts}
        for option in re.findall(r"(--[a-z-]+)", " ".join(words)):
            assert option in options, (line, option)
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / target).exists(), target


def test_both_readmes_show_the_same_commands() -> None:
    def commands(name: str) -> list[str]:
        lines = re.findall(r"^(?:sluice|sluice-api|    --).*$", (ROOT / name).read_text(), re.MULTILINE)
        return [line.split("#")[0].strip() for line in lines]

    assert commands("README.md") == commands("README.zh.md")


def test_no_registry_is_named_in_a_lock() -> None:
    for name in ("requirements.lock", "package-lock.json"):
        assert not re.search(r"https?://[^\s\"]*(registry|pypi|simple|\.tgz|\.whl)", (ROOT / name).read_text()), name


def own_errors() -> set[str]:
    """The custom errors that our interfaces and libraries declare."""
    sources = [*(ROOT / "contracts" / "interfaces").glob("*.sol"), *(ROOT / "contracts" / "libraries").glob("*.sol")]
    return {name for path in sources for name in re.findall(r"^\s+error (\w+)\(", path.read_text(), re.MULTILINE)}


def test_every_error_of_the_contracts_is_raised_by_a_solidity_test() -> None:
    tests = "".join(path.read_text() for path in (ROOT / "contracts" / "test").glob("*.sol"))
    assert len(own_errors()) > 80
    assert {name for name in own_errors() if f"{name}.selector" not in tests} == set()


def test_every_error_of_the_contracts_has_a_sentence() -> None:
    # A status is said with what the mirror knows of it; a clock in milliseconds can only be met at deployment.
    elsewhere = {"AuthorizationStatus", "ClockNotInSeconds"}
    assert own_errors() - set(_SENTENCES) == elsewhere


def test_every_attack_in_the_security_page_has_its_test() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    sources = [*(ROOT / "contracts" / "test").glob("*.sol"), *(ROOT / "tests").rglob("*.py")]
    known = set(re.findall(r"\b(test_\w+)\b(?=\()", "".join(path.read_text() for path in sources)))
    named = set(re.findall(r"`(test_\w+)`", page))
    assert len(named) > 60
    assert named <= known
