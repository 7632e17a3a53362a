"""Webhooks and their owners: how many one may have, and that nobody touches another's."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select

from ledger.core.errors import Conflict, InputInvalid, NotFound
from ledger.mirror.journal import BEGINNING
from ledger.webhooks import schema, store
from ledger.webhooks.store import MOST, Registration
from tests.ledger.webhooks.conftest import OWNER, Post
from tests.ledger.webhooks.receivers import Receiver
from tests.world import Key

STRANGER = Key.named("stranger").address
URL = "https://receiver.example/hook"


def test_a_wallet_has_so_many_webhooks_and_no_more(anywhere: Post) -> None:
    made = [anywhere.register(URL) for _ in range(MOST)]
    with pytest.raises(Conflict):
        anywhere.register(URL)
    anywhere.register(URL, owner=STRANGER)
    store.remove(anywhere.webhooks, OWNER, made[0]["webhook"])
    anywhere.register(URL)
    with anywhere.webhooks.connect() as connection:
        assert (len(store.listed(connection, OWNER)), len(store.listed(connection, STRANGER))) == (MOST, 1)


def test_nor_has_one_that_registers_many_at_once(anywhere: Post) -> None:
    def register(_: int) -> bool:
        try:
            return bool(anywhere.register(URL))
        except Conflict:
            return False

    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(register, range(2 * MOST)))
    assert sum(made) == MOST
    with anywhere.webhooks.connect() as connection:
        assert len(store.listed(connection, OWNER)) == MOST


def test_a_secret_is_shown_once_and_is_of_one_webhook(post: Post) -> None:
    first, second = post.register(URL), post.register(URL)
    assert first["secret"] != second["secret"]
    assert first["secret"].startswith("whsec_")
    with post.webhooks.connect() as connection:
        rows = store.listed(connection, OWNER)
        assert [row["webhook"] for row in rows] == sorted([first["webhook"], second["webhook"]])
        assert not any("secret" in row for row in rows)
        assert "secret" not in store.one(connection, OWNER, first["webhook"])
    assert "secret" not in store.replay(post.webhooks, OWNER, first["webhook"], BEGINNING, 1)


def test_another_owners_webhook_is_not_found_and_stays_as_it_is(anywhere: Post, receiver: Receiver) -> None:
    receiver.always(410)
    made = anywhere.register(receiver.url)
    anywhere.work(anywhere.deliverer())
    before = anywhere.row(made)
    name = made["webhook"]
    with anywhere.webhooks.connect() as connection:
        assert store.listed(connection, STRANGER) == []
        for ask in (store.one, store.dead_letters):
            with pytest.raises(NotFound):
                ask(connection, STRANGER, name)
    with pytest.raises(NotFound):
        store.replay(anywhere.webhooks, STRANGER, name, BEGINNING, 1)
    with pytest.raises(NotFound):
        store.remove(anywhere.webhooks, STRANGER, name)
    for missing in ("wh_0000000000000000", "", "' OR 1=1 --"):
        with pytest.raises(NotFound):
            store.remove(anywhere.webhooks, OWNER, missing)
    assert anywhere.row(made) == before


def test_what_is_taken_away_is_gone_with_its_letters(anywhere: Post, receiver: Receiver) -> None:
    receiver.always(400)
    made, deliverer = anywhere.register(receiver.url), anywhere.deliverer()
    for _ in range(5):
        anywhere.work(deliverer)
        anywhere.clock.now += 16
    assert anywhere.row(made)["dead_letters"] == 1
    store.remove(anywhere.webhooks, OWNER, made["webhook"])
    with anywhere.webhooks.connect() as connection:
        assert connection.execute(select(schema.dead_letters)).all() == []
        assert connection.execute(select(schema.webhooks)).all() == []
        with pytest.raises(NotFound):
            store.dead_letters(connection, OWNER, made["webhook"])


def test_letters_are_listed_oldest_first_and_so_many(post: Post, receiver: Receiver) -> None:
    receiver.always(400)
    made, deliverer = post.register(receiver.url), post.deliverer()
    for _ in range(20):
        post.work(deliverer)
        post.clock.now += 16
    with post.webhooks.connect() as connection:
        letters = store.dead_letters(connection, OWNER, made["webhook"])
        assert [letter["offset"] for letter in letters] == post.offsets()[: len(letters)]
        assert len(letters) == 4
        assert store.dead_letters(connection, OWNER, made["webhook"], limit=2) == letters[:2]


def test_a_url_that_may_not_be_is_refused_before_anything_is_kept(post: Post) -> None:
    for url in ("http://receiver.example/", "https://user@receiver.example/", "ftp://receiver.example/"):
        with pytest.raises(InputInvalid):
            store.register(post.webhooks, Registration(owner=OWNER, url=url), BEGINNING, 1)
    with post.webhooks.connect() as connection:
        assert store.listed(connection, OWNER) == []


def test_a_database_that_fails_says_nothing_secret(post: Post) -> None:
    """What the driver says ends in a log."""
    with post.webhooks.connect() as connection, connection.begin():
        connection.exec_driver_sql(
            "CREATE TRIGGER full BEFORE INSERT ON webhooks BEGIN SELECT RAISE(ABORT, 'full'); END"
        )
    with pytest.raises(Exception, match="full") as problem:
        post.register(URL)
    assert "whsec_" not in str(problem.value)
