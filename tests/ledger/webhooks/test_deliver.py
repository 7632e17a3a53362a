"""Deliveries over real HTTP: in order, at least once, and nothing is skipped that was not refused for good."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import Engine

from ledger.core.database import Target
from ledger.core.loopback import HOST
from ledger.mirror import queries
from ledger.mirror.follow import catch_up
from ledger.mirror.journal import BEGINNING, Offset
from ledger.mirror.store import open_mirror
from ledger.webhooks import store
from ledger.webhooks.cloudevents import verify
from ledger.webhooks.deliver import AT_A_TIME, LEASE, LONGEST, PATIENCE, REFUSALS, TIMEOUT, Deliverer
from tests.ledger.webhooks.conftest import OWNER, Post, posting
from tests.ledger.webhooks.receivers import Answer, Delivery, Receiver, receiving, slowly
from tests.world import World

ROOT = Path(__file__).parents[3]
ENDLESS = slowly(b"x" * 65_536, 0, b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n")


def test_everything_is_delivered_in_order_and_signed(anywhere: Post, receiver: Receiver) -> None:
    made = anywhere.register(receiver.url)
    anywhere.finish(anywhere.deliverer())
    assert receiver.ids == anywhere.offsets()
    assert len(receiver.ids) > AT_A_TIME
    for delivery in receiver.deliveries:
        assert delivery.line == "POST /hook HTTP/1.1"
        assert delivery.headers["webhook-id"] == delivery.id
        verify(made["secret"], delivery.headers, delivery.body, anywhere.clock())
    row = anywhere.row(made)
    assert (row["offset"], row["status"], row["failures"]) == (receiver.ids[-1], "active", 0)
    assert anywhere.leased_until(made) == 0


def test_what_was_not_answered_with_success_is_not_passed(post: Post, receiver: Receiver) -> None:
    """Whatever the receiver does, an event is followed only by itself until it was taken."""
    answers: Iterator[Answer] = iter([503, 200, 200, 429, 500, 200, 599, 408, 425, b"nonsense\r\n\r\n", b"", 204])

    def answer(_: Delivery) -> Answer:
        return next(answers, 202)

    receiver.answer = answer
    post.register(receiver.url)
    deliverer = post.deliverer()
    for _ in range(30):
        post.work(deliverer)
        post.clock.now += LONGEST
    assert list(dict.fromkeys(receiver.ids)) == post.offsets()
    assert len(receiver.ids) == len(post.offsets()) + 8
    assert all(a == b or b not in receiver.ids[: n + 1] for n, (a, b) in enumerate(pairwise(receiver.ids)))


@pytest.mark.parametrize("kind", ["unavailable", "too many", "refused connection", "hangs up", "redirects nowhere"])
def test_a_failing_receiver_is_left_alone_for_longer_and_longer_and_paused_after_three_days(
    post: Post, receiver: Receiver, kind: str
) -> None:
    answers: dict[str, Answer] = {
        "unavailable": 503,
        "too many": 429,
        "hangs up": b"",
        "redirects nowhere": b"HTTP/1.1 999 X\r\n\r\n",
    }
    receiver.always(answers.get(kind))
    url = "http://127.0.0.1:9/" if kind == "refused connection" else receiver.url
    made, deliverer = post.register(url), post.deliverer()
    began, waits = post.clock.now, []
    while post.row(made)["status"] != "paused":
        assert post.work(deliverer) == 0
        row = post.row(made)
        assert (row["offset"], row["dead_letters"]) == (str(BEGINNING), 0)
        wait = int(row["next_attempt"] - post.clock.now)
        waits.append(wait)
        post.clock.now += wait - 1
        assert deliverer.due() == []
        post.clock.now += 1
    assert waits[:14] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600, 3600]
    assert set(waits[12:]) == {LONGEST}
    assert PATIENCE <= post.clock.now - began < PATIENCE + 2 * LONGEST
    assert deliverer.due() == []
    assert post.row(made)["last_error"]


def test_a_paused_webhook_is_woken_by_a_replay(anywhere: Post, receiver: Receiver) -> None:
    receiver.always(410)
    made, deliverer = anywhere.register(receiver.url), anywhere.deliverer()
    assert anywhere.work(deliverer) == 0
    assert (anywhere.row(made)["status"], len(receiver.ids)) == ("paused", 1)
    anywhere.clock.now += 10 * PATIENCE
    assert anywhere.work(deliverer) == deliverer.work_on(made["webhook"]) == 0
    receiver.always(200)
    woken = store.replay(anywhere.webhooks, OWNER, made["webhook"], BEGINNING, int(anywhere.clock()))
    assert (woken["status"], woken["failures"], woken["last_error"]) == ("active", 0, None)
    anywhere.finish(deliverer)
    assert receiver.ids[1:] == anywhere.offsets()


@pytest.mark.parametrize("status", [400, 401, 404, 422, 301, 302, 307, 308])
def test_what_is_refused_five_times_is_a_dead_letter_and_the_next_event_is_delivered(
    post: Post, receiver: Receiver, status: int
) -> None:
    bad = post.offsets()[1]
    elsewhere = b"HTTP/1.1 %d X\r\nlocation: http://127.0.0.1:%d/elsewhere\r\ncontent-length: 0\r\n\r\n"
    receiver.answer = lambda delivery: elsewhere % (status, receiver.port) if delivery.id == bad else 200
    made, deliverer = post.register(receiver.url), post.deliverer()
    for _ in range(20):
        post.work(deliverer)
        post.clock.now += 16
    assert {delivery.line for delivery in receiver.deliveries} == {"POST /hook HTTP/1.1"}
    assert receiver.ids.count(bad) == REFUSALS
    assert list(dict.fromkeys(receiver.ids)) == post.offsets()
    row = post.row(made)
    assert (row["status"], row["failures"], row["dead_letters"]) == ("active", 0, 1)
    with post.webhooks.connect() as connection:
        (letter,) = store.dead_letters(connection, OWNER, made["webhook"])
    assert (letter["offset"], letter["attempts"]) == (bad, REFUSALS)
    assert letter["error"] == f"the receiver answered {status}"
    assert letter["event"] == next(d.event for d in receiver.deliveries if d.id == bad)


def test_an_outage_does_not_count_as_a_refusal(post: Post, receiver: Receiver) -> None:
    """A receiver that comes back and says 404 for a moment, as many do while they start, loses nothing."""
    first = post.offsets()[0]
    receiver.always(503)
    made, deliverer = post.register(receiver.url), post.deliverer()
    for _ in range(REFUSALS + 2):
        post.work(deliverer)
        post.clock.now += LONGEST
    receiver.always(404)
    for asked in range(1, REFUSALS):
        post.work(deliverer)
        assert (post.row(made)["dead_letters"], post.row(made)["offset"]) == (0, str(BEGINNING)), asked
        post.clock.now += LONGEST
    receiver.always(200)
    post.finish(deliverer)
    assert set(receiver.ids[: 2 * REFUSALS + 1]) == {first}
    assert post.row(made)["dead_letters"] == 0


def test_a_letter_that_is_refused_again_after_a_replay_is_kept_once(anywhere: Post, receiver: Receiver) -> None:
    bad = anywhere.offsets()[0]
    receiver.answer = lambda delivery: 400 if delivery.id == bad else 200
    made, deliverer = anywhere.register(receiver.url), anywhere.deliverer()
    for again in range(2):
        for _ in range(8):
            anywhere.work(deliverer)
            anywhere.clock.now += 16
        with anywhere.webhooks.connect() as connection:
            letters = store.dead_letters(connection, OWNER, made["webhook"])
        assert [letter["offset"] for letter in letters] == [bad], again
        store.replay(anywhere.webhooks, OWNER, made["webhook"], BEGINNING, int(anywhere.clock()))
    assert letters[0]["at"] > anywhere.clock.now - 8 * 16 - 1


@pytest.mark.parametrize(
    "answer",
    [
        slowly(b"x", 0.05, b"HTTP/1.1 200 OK\r\nx-long: "),
        slowly(b"HTTP/1.1 100 Continue\r\n\r\n", 0.01),
        slowly(b"", 0.05),
    ],
    ids=["endless header", "endless interim answers", "silence"],
)
def test_an_answer_that_does_not_come_ends_by_itself_and_is_a_failure(
    post: Post, receiver: Receiver, answer: Answer
) -> None:
    receiver.always(answer)
    made, deliverer = post.register(receiver.url), post.deliverer(timeout=0.5)
    turn = threading.Thread(target=post.work, args=(deliverer,), daemon=True)
    turn.start()
    turn.join(timeout=20)
    assert not turn.is_alive()
    assert (post.row(made)["status"], post.row(made)["failures"]) == ("retrying", 1)


def test_an_answer_whose_body_has_no_end_is_an_answer(post: Post, receiver: Receiver) -> None:
    receiver.always(ENDLESS)
    post.register(receiver.url)
    post.finish(post.deliverer())
    assert receiver.ids == post.offsets()


def test_nothing_a_receiver_says_is_said_to_another(post: Post, receiver: Receiver) -> None:
    receiver.always(b"HTTP/1.1 200 OK\r\nset-cookie: who=me; path=/\r\ncontent-length: 0\r\n\r\n")
    post.register(receiver.url)
    post.register(receiver.url + "/other")
    post.finish(post.deliverer())
    assert all("cookie" not in delivery.headers for delivery in receiver.deliveries)
    assert len({delivery.line for delivery in receiver.deliveries}) == 2


def test_who_was_not_told_before_the_time_is_not_asked_again_before_it(anywhere: Post, receiver: Receiver) -> None:
    """Two deliverers saw that the webhook was due; one of them failed meanwhile."""
    receiver.always(503)
    made = anywhere.register(receiver.url)
    one, other = anywhere.deliverer(), anywhere.deliverer()
    assert one.due() == other.due() == [made["webhook"]]
    for deliverer in (one, other):
        assert deliverer.work_on(made["webhook"]) == 0
    assert (len(receiver.ids), anywhere.row(made)["failures"]) == (1, 1)


def test_a_webhook_has_its_turn_and_then_others_have_theirs(post: Post, receiver: Receiver) -> None:
    post.register(receiver.url)
    assert post.work(post.deliverer()) == AT_A_TIME


def test_a_webhook_with_nothing_to_tell_writes_nothing(anywhere: Post, receiver: Receiver) -> None:
    """Every write is a flush to the disk, and most webhooks have nothing to tell most of the time."""
    made, deliverer = anywhere.register(receiver.url), anywhere.deliverer()
    anywhere.finish(deliverer)
    with anywhere.webhooks.connect() as watch:
        near = anywhere.webhooks.dialect.name == "sqlite"
        look = "PRAGMA data_version" if near else "SELECT xmin::text FROM webhooks"
        before = watch.exec_driver_sql(look).scalar_one()
        watch.rollback()
        assert deliverer.due() == [made["webhook"]]
        assert anywhere.work(deliverer) == 0
        assert watch.exec_driver_sql(look).scalar_one() == before


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example", ".example"])
def test_a_webhook_whose_name_is_no_name_hinders_no_other(anywhere: Post, receiver: Receiver, host: str) -> None:
    bad = [anywhere.register(f"https://{host}/{n}") for n in range(10)]
    anywhere.clock.now += 1
    anywhere.register(receiver.url)
    deliverer = anywhere.deliverer()
    deliverer.start()
    receiver.wait(lambda: receiver.ids == anywhere.offsets())
    deliverer.stop()
    anywhere.work(anywhere.deliverer())
    assert {anywhere.row(one)["status"] for one in bad} == {"retrying"}


def test_a_receiver_that_does_not_answer_does_not_hold_up_others(
    post: Post, receiver: Receiver, world: World, tmp_path: Path
) -> None:
    """Not even those whose events come while it is waited for."""
    mirror = open_mirror(tmp_path / "mirror.db", world.deployment)
    catch_up(mirror, world.chain, world.deployment)
    post.mirror = mirror
    with receiving() as silent:
        silent.always(None)
        post.register(silent.url)
        post.register(receiver.url)
        post.deliverer().start()
        receiver.wait(lambda: receiver.ids == post.offsets())
        silent.wait(lambda: len(silent.ids) == 1)
        world.fund(5)
        catch_up(mirror, world.chain, world.deployment)
        with receiver.arrived:
            came = receiver.arrived.wait_for(lambda: receiver.ids == post.offsets(), 5)
        assert came
        assert len(silent.ids) == 1
    for deliverer in post.deliverers:
        deliverer.stop()
    mirror.dispose()


def test_a_receiver_that_is_slow_for_good_gives_way_after_one_timeout(post: Post, receiver: Receiver) -> None:
    """Its events all arrive, but not twenty timeouts of them in one turn."""
    post.register(receiver.url)

    def answer(_: Delivery) -> int:
        post.clock.now += TIMEOUT - 0.1
        return 200

    receiver.answer = answer
    assert post.work(post.deliverer()) <= 2


# --------------------------------------------------------------------------------- crashes, several at once


def test_who_is_killed_between_delivering_and_noting_it_delivers_again(
    post: Post, receiver: Receiver, told: Engine, tmp_path: Path
) -> None:
    """The receiver kills the process that delivers; what it was sent comes again, with the same id and body."""
    made = post.register(receiver.url)
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from ledger.core.database import connect\n"
        "from ledger.webhooks.deliver import Deliverer\n"
        "webhooks, mirror, chain, now = sys.argv[1:]\n"
        "d = Deliverer(connect(Path(webhooks)), connect(Path(mirror)), int(chain), private=True, "
        "clock=lambda: float(now))\n"
        "d.start()\n"
        "time.sleep(60)\n"
    )
    mirror = str(told.url.database)
    arguments = [str(tmp_path / "webhooks.db"), mirror, str(post.chain_id), str(post.clock.now)]
    started: list[subprocess.Popen[bytes]] = []

    def answer(_: Delivery) -> int | bytes:
        if len(receiver.deliveries) == 2:
            os.kill(started[0].pid, signal.SIGKILL)
            return b""
        return 200

    receiver.answer = answer
    started.append(subprocess.Popen([sys.executable, "-c", script, *arguments], cwd=ROOT))
    assert started[0].wait(timeout=30) == -signal.SIGKILL
    assert post.row(made)["offset"] == post.offsets()[1]
    deliverer = post.deliverer()
    assert deliverer.due() == []  # the killed one's lease
    post.clock.now += LEASE
    receiver.always(200)
    post.finish(deliverer)
    offsets = post.offsets()
    assert receiver.ids == [*offsets[:3], *offsets[2:]]
    first, again = receiver.deliveries[2:4]
    assert (first.headers["webhook-id"], first.body) == (again.headers["webhook-id"], again.body)
    assert first.headers["webhook-timestamp"] != again.headers["webhook-timestamp"]


def test_several_deliverers_on_one_database_deliver_in_order_and_lose_nothing(anywhere: Post) -> None:
    with receiving() as one, receiving() as other:
        for receiver in (one, other):
            anywhere.register(receiver.url)
        for _ in range(3):
            anywhere.deliverer(clock=lambda: anywhere.clock.now).start()
        offsets = anywhere.offsets()
        for receiver in (one, other):
            receiver.wait(lambda receiver=receiver: receiver.ids == offsets)  # type: ignore[misc]
        for deliverer in anywhere.deliverers:
            deliverer.stop()
        assert one.ids == other.ids == offsets


def test_whose_lease_ran_out_moves_nothing_and_nothing_is_lost(anywhere: Post, receiver: Receiver) -> None:
    """While one waits for its answer, its lease runs out and another delivers."""
    made = anywhere.register(receiver.url)
    slow, quick = anywhere.deliverer(), anywhere.deliverer()

    def answer(delivery: Delivery) -> int:
        if not receiver.deliveries:
            receiver.deliveries.append(delivery)
            anywhere.clock.now += LEASE
            anywhere.finish(quick)
        return 200

    receiver.answer = answer
    assert slow.work_on(made["webhook"]) == 0
    offsets = anywhere.offsets()
    assert list(dict.fromkeys(receiver.ids)) == offsets
    assert anywhere.row(made)["offset"] == offsets[-1]
    assert anywhere.leased_until(made) == 0


def test_whose_lease_ran_out_says_nothing_of_a_failure_that_is_over(anywhere: Post, receiver: Receiver) -> None:
    """The event it could not deliver was the first of a replay that another deliverer works on."""
    made = anywhere.register(receiver.url)
    slow = anywhere.deliverer()

    def answer(_: Delivery) -> int:
        store.replay(anywhere.webhooks, OWNER, made["webhook"], BEGINNING, int(anywhere.clock()))
        return 410

    receiver.answer = answer
    assert slow.work_on(made["webhook"]) == 0
    assert (anywhere.row(made)["status"], anywhere.row(made)["failures"]) == ("active", 0)


# --------------------------------------------------------------------------------------- replays, reorgs


def test_a_replay_from_the_beginning_delivers_everything_again(anywhere: Post, receiver: Receiver) -> None:
    made, deliverer = anywhere.register(receiver.url), anywhere.deliverer()
    anywhere.finish(deliverer)
    store.replay(anywhere.webhooks, OWNER, made["webhook"], BEGINNING, int(anywhere.clock()))
    anywhere.finish(deliverer)
    assert receiver.ids == anywhere.offsets() * 2
    half = len(anywhere.offsets()) // 2
    after = Offset.parse(receiver.ids[half])
    store.replay(anywhere.webhooks, OWNER, made["webhook"], after, int(anywhere.clock()))
    anywhere.finish(deliverer)
    assert receiver.ids == anywhere.offsets() * 2 + anywhere.offsets()[half + 1 :]


@pytest.mark.parametrize("at", [0, 1, 4])
def test_a_replay_while_a_delivery_is_under_way_delivers_everything_again(
    anywhere: Post, receiver: Receiver, at: int
) -> None:
    """Also if the event under way is the first one of the replay."""
    made, deliverer = anywhere.register(receiver.url), anywhere.deliverer()

    def answer(_: Delivery) -> int:
        if len(receiver.deliveries) == at:
            store.replay(anywhere.webhooks, OWNER, made["webhook"], BEGINNING, int(anywhere.clock()))
        return 200

    receiver.answer = answer
    for _ in range(3):
        anywhere.finish(deliverer)
    assert receiver.ids == anywhere.offsets()[: at + 1] + anywhere.offsets()


def test_a_webhook_taken_away_during_a_delivery_is_delivered_no_more(anywhere: Post, receiver: Receiver) -> None:
    for status in (200, 503, 400, 410):
        made, deliverer = anywhere.register(receiver.url), anywhere.deliverer()
        receiver.always(400)
        for _ in range(REFUSALS - 1):
            deliverer.work_on(made["webhook"])
            anywhere.clock.now += 16

        def answer(_: Delivery, made: dict[str, object] = made, status: int = status) -> int:
            store.remove(anywhere.webhooks, OWNER, str(made["webhook"]))
            return status

        receiver.answer = answer
        assert deliverer.work_on(made["webhook"]) == 0
        assert deliverer.due() == []
        with anywhere.webhooks.connect() as connection:
            assert store.listed(connection, OWNER) == []


def test_retractions_are_delivered_after_a_reorg_but_not_to_who_wants_what_is_final(
    own_world: World, database: Target, tmp_path: Path, receiver: Receiver
) -> None:
    world = own_world
    mirror = open_mirror(tmp_path / "mirror.db", world.deployment)
    catch_up(mirror, world.chain, world.deployment)
    with receiving() as careful:
        for post in posting(database, mirror, world):
            post.register(receiver.url)
            post.register(careful.url, final=True)
            deliverer = post.deliverer()
            terms = world.open(5_000_000)
            world.settle(terms, 3, (3, 72, 0, 0))
            catch_up(mirror, world.chain, world.deployment)
            post.finish(deliverer)
            told = len(receiver.ids)
            world.chain.rpc("anvil_reorg", 3, [])
            world.chain.rpc("evm_mine")
            catch_up(mirror, world.chain, world.deployment)
            world.fund(5)
            catch_up(mirror, world.chain, world.deployment)
            post.finish(deliverer)
            assert receiver.ids == post.offsets()
            later = [delivery.event for delivery in receiver.deliveries[told:]]
            taken_back = [event for event in later if event["data"]["retracted"]]
            assert [event["type"].endswith(".retracted") for event in later] == [e["data"]["retracted"] for e in later]
            before = [delivery.event["data"] for delivery in receiver.deliveries[:told]][::-1]
            said = ("block", "blockHash", "logIndex", "event", "args")
            assert taken_back
            assert [[e["data"][n] for n in said] for e in taken_back] == [
                [data[n] for n in said] for data in before[: len(taken_back)]
            ]
            world.chain.rpc("anvil_mine", hex(80))
            catch_up(mirror, world.chain, world.deployment)
            post.finish(deliverer)
            with mirror.connect() as connection:
                assert queries.cursor(connection).final > taken_back[0]["data"]["block"]
            assert not any(delivery.event["data"]["retracted"] for delivery in careful.deliveries)
            assert careful.ids == post.offsets(final=True)
            stands = [delivery.event["data"] for delivery in receiver.deliveries]
            gone = {(e["data"]["blockHash"], e["data"]["logIndex"]) for e in taken_back}
            left = [d for d in stands if (d["blockHash"], d["logIndex"]) not in gone]
            assert [delivery.event["data"] for delivery in careful.deliveries] == left
    mirror.dispose()


def test_only_what_is_wanted_is_delivered_and_what_is_not_is_passed(post: Post, receiver: Receiver) -> None:
    made, deliverer = post.register(receiver.url, event="SpaceCreated"), post.deliverer()
    none = post.register(receiver.url, event="Nothing")
    post.finish(deliverer)
    assert [delivery.event["data"]["event"] for delivery in receiver.deliveries] == ["SpaceCreated"]
    assert post.row(made)["offset"] == post.row(none)["offset"] == post.offsets()[-1]


def test_a_webhook_of_an_offset_the_mirror_never_had_is_paused_with_the_reason(post: Post, receiver: Receiver) -> None:
    made = post.register(receiver.url, Offset(3, 0, "0123456789abcdef"))
    assert post.work(post.deliverer()) == 0
    assert post.row(made)["status"] == "paused"
    assert "no block that begins with" in post.row(made)["last_error"]
    assert receiver.ids == []


# ---------------------------------------------------------------------------------------- where it goes


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "::ffff:127.0.0.1"])
def test_a_name_that_leads_into_a_private_network_now_pauses_its_webhook(
    post: Post, receiver: Receiver, address: str
) -> None:
    """It led elsewhere when it was registered, and before the look-up at the delivery."""
    made = post.register(f"https://receiver.example:{receiver.port}/")
    assert post.work(post.deliverer(private=False, look_up=lambda *_: [address])) == 0
    row = post.row(made)
    assert (row["status"], receiver.deliveries) == ("paused", [])
    assert address not in row["last_error"], "what names are of inside is nobody's business outside"


def test_the_host_named_is_the_host_told_and_the_address_looked_up_is_where_it_goes(
    post: Post, receiver: Receiver
) -> None:
    asked: list[tuple[str, int]] = []

    def look_up(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return [HOST]

    post.register(f"http://Receiver.Example:{receiver.port}/a%20b;c?d=e&f")
    post.finish(post.deliverer(look_up=look_up))
    assert set(asked) == {("receiver.example", receiver.port)}
    assert {d.headers["host"].lower() for d in receiver.deliveries} == {f"receiver.example:{receiver.port}"}
    assert {d.line for d in receiver.deliveries} == {"POST /a%20b;c?d=e&f HTTP/1.1"}
    assert all("webhook" in d.headers["user-agent"] for d in receiver.deliveries)


def test_a_name_that_is_of_no_address_is_tried_again(post: Post) -> None:
    def look_up(_host: str, _port: int) -> list[str]:
        raise OSError("no such name")

    made = post.register("https://receiver.example/")
    other = post.register("https://receiver.example/")
    assert post.work(post.deliverer(look_up=look_up)) == 0
    assert post.row(made)["status"] == "retrying"
    assert post.deliverer(look_up=lambda *_: []).work_on(other["webhook"]) == 0
    assert post.row(other)["status"] == "retrying"


def test_a_deliverer_that_is_stopped_ends(post: Post, receiver: Receiver) -> None:
    post.register(receiver.url)
    deliverer: Deliverer = post.deliverer()
    deliverer.start()
    receiver.wait(lambda: receiver.ids == post.offsets())
    deliverer.stop()
    assert "webhooks" not in {thread.name for thread in threading.enumerate()}
    assert json.loads(receiver.deliveries[0].body)["specversion"] == "1.0"
