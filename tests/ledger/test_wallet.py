"""Wallets: a key is in an encrypted file or in memory, and nowhere else."""

import json
import stat
from pathlib import Path

import pytest

from ledger import wallet
from ledger.core.errors import Conflict, InputInvalid, NotFound
from ledger.core.signing import recover
from ledger.core.terms import Acceptance
from ledger.core.typed_data import Domain
from ledger.wallet import WrongPassword
from tests.world import digest

KEY = "0x" + "42" * 32
PASSWORD = "correct horse"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    wallet.import_key(tmp_path / "w.json", KEY, PASSWORD)
    return tmp_path / "w.json"


def test_a_keystore_opens_with_its_password_and_signs(file: Path) -> None:
    opened = wallet.unlock(file, PASSWORD)
    assert opened.address == wallet.address_of(file)
    message = Acceptance(authorization_id=digest("a"), reserve=1, deadline=2)
    domain = Domain(1, opened.address)
    assert recover(message.digest(domain), opened.sign(message, domain)) == opened.address


def test_the_key_is_neither_in_the_file_nor_in_what_is_shown(file: Path) -> None:
    opened = wallet.unlock(file, PASSWORD)
    assert KEY[2:] not in file.read_text()
    assert KEY[2:] not in repr(opened)
    assert "_account" not in repr(opened)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_wrong_password_opens_nothing(file: Path) -> None:
    with pytest.raises(WrongPassword):
        wallet.unlock(file, "wrong horse")


def test_a_wallet_is_never_overwritten(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(Conflict):
        wallet.create(file, PASSWORD)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", "not json", json.dumps({"crypto": {}, "version": 3, "address": "11"})]
)
def test_a_file_that_is_no_keystore_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "w.json"
    path.write_text(content)
    with pytest.raises(InputInvalid, match="keystore"):
        wallet.unlock(path, PASSWORD)
    with pytest.raises(NotFound):
        wallet.unlock(tmp_path / "none.json", PASSWORD)


def test_a_bad_key_is_refused_without_repeating_it(tmp_path: Path) -> None:
    with pytest.raises(InputInvalid) as caught:
        wallet.import_key(tmp_path / "w.json", "my secret key", PASSWORD)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    with pytest.raises(InputInvalid, match="8 characters"):
        wallet.create(tmp_path / "w.json", "short")


def test_a_password_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("secret word\n")
    path.chmod(0o644)
    with pytest.raises(InputInvalid, match="chmod 600"):
        wallet.read_password(path)
    path.chmod(0o600)
    assert wallet.read_password(path) == "secret word"
