"""What members are told: in the app, as they choose, and nobody else."""

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from identity_network import Caller, Network, TestClock, make_settings, running

from common.events import Event
from common.ids import new_id
from identity.app import MIGRATIONS
from identity.consumers import handlers
from identity.notices import service, store
from identity.notices.domain import ATTEMPTS_MAX, KEPT, Away, Letter, Next, Outcome, Refused, Sent
from identity.notices.push import to_point
from identity.notices.sender import send_due
from identity.settings import IdentitySettings
from identity.vault import to_base64url

MAIL = {
    "smtp_url": "smtp://127.0.0.1:1",
    "mail_from": "Copass <rien@copass.example>",
    "portal_url": "https://p.example",
    "push_contact": "mailto:tech@copass.example",
}


@pytest.fixture
async def settings(make_database: Callable[[str, Path], Awaitable[str]]) -> IdentitySettings:
    return make_settings(await make_database("identity", MIGRATIONS), **MAIL)


@pytest.fixture
async def network(settings: IdentitySettings, clock: TestClock) -> AsyncIterator[Network]:
    async with running(settings, clock) as network:
        await network.city("nantes")
        yield network


class Box:
    """A channel that keeps what it is given, and answers as it is told."""

    def __init__(self, *outcomes: Outcome) -> None:
        self.letters: list[Letter] = []
        self.outcomes = list(outcomes)

    async def send(self, letter: Letter) -> Outcome:
        self.letters.append(letter)
        return self.outcomes.pop(0) if self.outcomes else Sent()


async def tell(
    network: Network,
    member_id: str,
    kind: str = "transfer.received",
    *,
    notice_id: UUID | None = None,
    at: datetime | None = None,
    settings: IdentitySettings | None = None,
    **subject: Any,
) -> UUID:
    """As the worker hears of it."""
    notice_id = notice_id or new_id()
    event = Event(
        id=uuid4(),
        type="timebank.notice.v1",
        source="/timebank",
        subject=member_id,
        time=network.clock(),
        data={
            "notice_id": str(notice_id),
            "member_id": member_id,
            "kind": kind,
            "subject": subject,
            "created_at": (at or network.clock()).isoformat(),
            "more": 1,
        },
    )
    handle = handlers(settings or network.settings, network.clock)["timebank.notices.v1"]
    async with network.conn.transaction():
        await handle(network.conn, event)
    return notice_id


async def listed(caller: Caller, query: str = "") -> list[dict[str, Any]]:
    answer = await caller.get(f"/v1/notices{query}")
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def prefer(caller: Caller, email: str, *, push: bool = True, language: str = "fr") -> None:
    body = {"email": email, "push": push, "language": language}
    answer = await caller.put("/v1/me/notifications", body)
    assert answer.status_code == 200, answer.text


async def deliveries(network: Network) -> list[dict[str, Any]]:
    rows = await network.conn.fetch(
        "SELECT channel, status, attempts, last_error, digest_on FROM notification_delivery"
        " ORDER BY delivery_id"
    )
    return [dict(row) for row in rows]


# In the app


async def test_a_notice_is_read_in_both_languages_by_its_member_alone(network: Network) -> None:
    caller, me = await network.somebody("nantes")
    other, _ = await network.somebody("nantes", "steward")
    transfer_id = str(uuid4())
    notice_id = await tell(network, me["member_id"], minutes=90, transfer_id=transfer_id)
    (notice,) = await listed(caller)
    assert notice == {
        "notice_id": str(notice_id),
        "kind": "transfer.received",
        "subject": {"minutes": 90, "transfer_id": transfer_id},
        "text": {"fr": "Vous avez reçu 1 h 30.", "en": "You have received 1 h 30."},
        "created_at": "2026-11-22T12:00:00Z",
        "read_at": None,
    }
    assert await listed(other) == await listed(network.admin) == []
    for stranger in (other, network.admin):
        answer = await stranger.post(f"/v1/notices/{notice_id}/read")
        absent = await stranger.post(f"/v1/notices/{uuid4()}/read")
        assert answer.status_code == absent.status_code == 404
        assert answer.content == absent.content
    assert (await Caller(network.http).get("/v1/notices")).status_code == 401


async def test_the_same_notice_twice_is_one(network: Network) -> None:
    caller, me = await network.somebody("nantes")
    await prefer(caller, "each")
    notice_id = await tell(network, me["member_id"])
    await tell(network, me["member_id"], notice_id=notice_id)
    assert len(await listed(caller)) == 1
    assert len(await deliveries(network)) == 1


async def test_nobody_unknown_or_erased_is_told_anything(network: Network) -> None:
    await tell(network, str(uuid4()))
    me = await network.member("nantes")
    answer = await network.admin.post(f"/v1/members/{me['member_id']}/erase", {})
    assert answer.status_code == 200, answer.text
    await tell(network, me["member_id"])
    assert await network.conn.fetchval("SELECT count(*) FROM notice") == 0


async def test_the_suspended_find_it_when_they_are_back(network: Network) -> None:
    caller, me = await network.somebody("nantes")
    await prefer(caller, "each")
    await network.admin.post(f"/v1/members/{me['member_id']}/suspend")
    await tell(network, me["member_id"])
    assert await deliveries(network) == []
    await network.admin.post(f"/v1/members/{me['member_id']}/reinstate")
    assert len(await listed(caller)) == 1


async def test_reading_one_and_reading_all(network: Network) -> None:
    caller, me = await network.somebody("nantes")
    other, them = await network.somebody("nantes")
    ids = []
    for _ in range(3):
        network.clock.advance(minutes=1)
        ids.append(str(await tell(network, me["member_id"])))
    await tell(network, them["member_id"])
    read = await caller.post(f"/v1/notices/{ids[1]}/read")
    first_read = read.json()["read_at"]
    network.clock.advance(minutes=1)
    again = await caller.post(f"/v1/notices/{ids[1]}/read")
    assert again.json()["read_at"] == first_read
    assert [n["notice_id"] for n in await listed(caller, "?unread=true")] == [ids[2], ids[0]]
    assert [n["notice_id"] for n in await listed(caller, "?unread=false")] == [ids[1]]
    assert (await caller.get("/v1/notices?limit=1")).json()["unread"] == 2
    assert (await caller.post("/v1/notices/read-all")).json() == {"read": 2}
    assert (await caller.post("/v1/notices/read-all")).json() == {"read": 0}
    assert (await caller.get("/v1/notices")).json()["unread"] == 0
    assert len(await listed(other, "?unread=true")) == 1


async def test_pages_are_newest_first_without_gaps(network: Network) -> None:
    caller, me = await network.somebody("nantes")
    made = []
    for number in range(7):
        if number % 2:
            network.clock.advance(seconds=1)
        made.append(str(await tell(network, me["member_id"])))
    seen: list[str] = []
    cursor = ""
    while True:
        answer = (await caller.get(f"/v1/notices?limit=2{cursor}")).json()
        seen += [item["notice_id"] for item in answer["items"]]
        if answer["next"] is None:
            break
        cursor = f"&cursor={answer['next']}"
    assert seen == list(reversed(made))


async def test_the_count_of_unread_is_bounded(network: Network) -> None:
    caller, me = await network.somebody("nantes")
    await network.conn.execute(
        "INSERT INTO notice (notice_id, member_id, kind, subject, created_at)"
        " SELECT gen_random_uuid(), $1, 'x', '{}', now() FROM generate_series(1, 130)",
        UUID(me["member_id"]),
    )
    assert (await caller.get("/v1/notices?limit=1")).json()["unread"] == 100


async def test_a_notice_that_makes_no_sense_is_refused_to_the_dead_letters(
    network: Network,
) -> None:
    handle = handlers(network.settings, network.clock)["timebank.notices.v1"]
    good = {
        "notice_id": str(uuid4()),
        "member_id": str(uuid4()),
        "kind": "x",
        "subject": {},
        "created_at": "2026-11-22T12:00:00+00:00",
    }
    wrong: list[dict[str, Any]] = [
        {"kind": ""},
        {"kind": "x" * 101},
        {"subject": []},
        {"member_id": "7"},
        {"created_at": "2026-11-22T12:00:00"},
    ]
    for change in wrong:
        event = Event(uuid4(), "t", "/t", "k", network.clock(), {**good, **change})
        with pytest.raises(ValueError, match="validation error"):
            await handle(network.conn, event)


async def test_notices_are_kept_180_days(network: Network) -> None:
    caller, me = await network.somebody("nantes")
    await prefer(caller, "each")
    await tell(network, me["member_id"])
    await send_due(network.context.pool, {"email": Box()}, network.clock)
    network.clock.advance(days=KEPT.days - 1)
    kept = await tell(network, me["member_id"])
    await service.tidy_up(network.conn, network.clock(), rows_max=10)
    assert len(await listed_as(network, me)) == 2
    network.clock.advance(days=2)
    await service.tidy_up(network.conn, network.clock(), rows_max=10)
    assert [n["notice_id"] for n in await listed_as(network, me)] == [str(kept)]
    assert [d["status"] for d in await deliveries(network)] == ["waiting"]


async def listed_as(network: Network, member: dict[str, Any]) -> list[dict[str, Any]]:
    return await listed(await network.caller(member["email"]))


# Preferences


async def test_what_holds_for_who_never_chose_and_what_was_chosen(network: Network) -> None:
    caller, _me = await network.somebody("nantes")
    answer = (await caller.get("/v1/me/notifications")).json()
    key = answer.pop("push_key")
    assert len(base64.urlsafe_b64decode(key + "=")) == 65
    assert answer == {
        "email": "daily",
        "push": True,
        "language": "fr",
        "email_available": True,
        "email_failing": False,
    }
    await prefer(caller, "off", push=False, language="en")
    answer = (await caller.get("/v1/me/notifications")).json()
    assert (answer["email"], answer["push"], answer["language"]) == ("off", False, "en")
    bad = {"email": "hourly", "push": True, "language": "fr"}
    refused = await caller.put("/v1/me/notifications", bad)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "body.email")


async def test_a_service_has_no_notices(network: Network) -> None:
    client = await network.admin.made("/v1/clients", {"name": "A service", "city_id": "nantes"})
    token = await network.token_request(
        grant_type="client_credentials",
        client_id=client["client_id"],
        client_secret=client["client_secret"],
    )
    caller = Caller(network.http, token.json()["access_token"])
    for path in ("/v1/notices", "/v1/me/notifications", "/v1/me/push-subscriptions"):
        assert (await caller.get(path)).status_code == 403, path


@pytest.mark.parametrize(("email", "expected"), [("off", 0), ("daily", 0), ("each", 1)])
async def test_an_email_of_each_notice_only_when_asked_for(
    network: Network, email: str, expected: int
) -> None:
    caller, me = await network.somebody("nantes")
    await prefer(caller, email)
    await tell(network, me["member_id"])
    assert len(await deliveries(network)) == expected


async def test_without_a_mail_server_nothing_waits_to_be_sent(
    network: Network, settings: IdentitySettings
) -> None:
    caller, me = await network.somebody("nantes")
    await prefer(caller, "each")
    quiet = settings.model_copy(update={"smtp_url": "", "push_contact": ""})
    await tell(network, me["member_id"], settings=quiet)
    assert await deliveries(network) == []
    assert len(await listed(caller)) == 1


async def test_old_news_wakes_nobody(network: Network) -> None:
    caller, me = await network.somebody("nantes")
    await prefer(caller, "each")
    await tell(network, me["member_id"], at=network.clock() - timedelta(days=3))
    await tell(network, me["member_id"], at=network.clock() - timedelta(days=200))
    assert await deliveries(network) == []
    assert len(await listed(caller)) == 1


async def test_a_flood_of_notices_is_no_flood_of_emails(network: Network) -> None:
    caller, me = await network.somebody("nantes")
    await prefer(caller, "each")
    for _ in range(53):
        await tell(network, me["member_id"])
    assert len(await deliveries(network)) == 50
    assert (await caller.get("/v1/notices?limit=200")).json()["unread"] == 53


# Being sent


async def test_a_message_is_sent_once_however_many_workers(network: Network) -> None:
    caller, me = await network.somebody("nantes")
    await prefer(caller, "each")
    for _ in range(9):
        await tell(network, me["member_id"])
    box = Box()
    pool = network.context.pool
    await asyncio.gather(*(send_due(pool, {"email": box}, network.clock) for _ in range(4)))
    assert len(box.letters) == 9
    assert {d["status"] for d in await deliveries(network)} == {"sent"}


async def test_what_one_worker_is_taking_another_neither_takes_nor_waits_for(
    network: Network,
) -> None:
    caller, me = await network.somebody("nantes")
    await prefer(caller, "each")
    await tell(network, me["member_id"])
    now = network.clock()
    lease = now + timedelta(minutes=2)
    async with network.conn.transaction(), network.context.pool.acquire() as other:
        taken = await store.claim_due(network.conn, now=now, lease_until=lease, limit=5)
        assert len(taken) == 1
        assert await store.claim_due(other, now=now, lease_until=lease, limit=5) == []


async def test_what_was_read_meanwhile_or_is_no_longer_wanted_stays_at_home(
    network: Network,
) -> None:
    caller, me = await network.somebody("nantes")
    await prefer(caller, "each")
    read = await tell(network, me["member_id"])
    await caller.post(f"/v1/notices/{read}/read")
    box = Box()
    await send_due(network.context.pool, {"email": box}, network.clock)
    await tell(network, me["member_id"])
    await prefer(caller, "off")
    await send_due(network.context.pool, {"email": box}, network.clock)
    assert box.letters == []
    assert [d["status"] for d in await deliveries(network)] == ["dropped", "dropped"]


async def test_a_server_away_is_tried_again_and_then_given_up_where_it_is_seen(
    network: Network,
) -> None:
    caller, me = await network.somebody("nantes")
    await prefer(caller, "each")
    await tell(network, me["member_id"])
    box = Box(*[Away("ConnectionRefusedError")] * 20)
    for attempt in range(1, ATTEMPTS_MAX + 1):
        assert await send_due(network.context.pool, {"email": box}, network.clock) == 1
        # Not before its time.
        assert await send_due(network.context.pool, {"email": box}, network.clock) == 0
        assert len(box.letters) == attempt
        network.clock.advance(hours=16)
    assert await send_due(network.context.pool, {"email": box}, network.clock) == 0
    (delivery,) = await deliveries(network)
    assert (delivery["status"], delivery["attempts"]) == ("given_up", ATTEMPTS_MAX)
    failed = await store.list_failed(network.conn, 10)
    assert [each["last_error"] for each in failed] == ["ConnectionRefusedError"]
    caller = await network.caller(me["email"])
    assert (await caller.get("/v1/me/notifications")).json()["email_failing"] is True
    assert len({letter.delivery_id for letter in box.letters}) == 1
    # Asked for again, it goes out when the server is back.
    assert await store.retry_failed(network.conn, None, network.clock()) == 1
    good = Box()
    await send_due(network.context.pool, {"email": good}, network.clock)
    assert [letter.delivery_id for letter in good.letters] == [box.letters[0].delivery_id]
    assert (await caller.get("/v1/me/notifications")).json()["email_failing"] is False


async def test_a_refusal_for_good_is_not_repeated(network: Network) -> None:
    caller, me = await network.somebody("nantes")
    await prefer(caller, "each")
    await tell(network, me["member_id"])
    box = Box(Refused("smtp_550"))
    await send_due(network.context.pool, {"email": box}, network.clock)
    network.clock.advance(days=2)
    assert await send_due(network.context.pool, {"email": box}, network.clock) == 0
    assert await store.retry_failed(network.conn, None, network.clock()) == 0
    (delivery,) = await deliveries(network)
    assert (delivery["status"], delivery["last_error"]) == ("refused", "smtp_550")


async def test_a_worker_that_dies_with_a_message_loses_nothing(network: Network) -> None:
    caller, me = await network.somebody("nantes")
    await prefer(caller, "each")
    await tell(network, me["member_id"])

    class Killed(Box):
        async def send(self, letter: Letter) -> Outcome:
            await super().send(letter)
            raise asyncio.CancelledError  # after it was sent, before it is marked

    killed, box = Killed(), Box()
    with pytest.raises(asyncio.CancelledError):
        await send_due(network.context.pool, {"email": killed}, network.clock)
    assert await send_due(network.context.pool, {"email": box}, network.clock) == 0  # its lease
    network.clock.advance(minutes=3)
    await send_due(network.context.pool, {"email": box}, network.clock)
    assert [letter.delivery_id for letter in box.letters] == [killed.letters[0].delivery_id]
    assert [d["status"] for d in await deliveries(network)] == ["sent"]


async def test_a_late_answer_does_not_undo_what_another_worker_did(network: Network) -> None:
    caller, me = await network.somebody("nantes")
    await prefer(caller, "each")
    await tell(network, me["member_id"])
    now = network.clock()
    claim = {"lease_until": now + timedelta(minutes=2), "limit": 1}
    (slow,) = await store.claim_due(network.conn, now=now, **claim)
    network.clock.advance(minutes=3)
    await send_due(network.context.pool, {"email": Box()}, network.clock)
    await store.save_outcome(
        network.conn,
        slow,
        Next("waiting", network.clock(), "late"),
        network.clock(),
    )
    assert [d["status"] for d in await deliveries(network)] == ["sent"]


async def test_a_message_that_kills_each_worker_ends(network: Network) -> None:
    caller, me = await network.somebody("nantes")
    await prefer(caller, "each")
    await tell(network, me["member_id"])
    await network.conn.execute("UPDATE notification_delivery SET attempts = $1", ATTEMPTS_MAX)
    box = Box()
    await send_due(network.context.pool, {"email": box}, network.clock)
    assert box.letters == []
    assert [(d["status"], d["last_error"]) for d in await deliveries(network)] == [
        ("given_up", "worker_died")
    ]


async def test_a_channel_that_is_switched_off_gives_up_what_waits(network: Network) -> None:
    caller, me = await network.somebody("nantes")
    await prefer(caller, "each")
    await tell(network, me["member_id"])
    await send_due(network.context.pool, {}, network.clock)
    assert [(d["status"], d["last_error"]) for d in await deliveries(network)] == [
        ("given_up", "channel_off")
    ]


async def test_a_channel_with_a_bug_stops_nobody_else(network: Network) -> None:
    caller, me = await network.somebody("nantes")
    await prefer(caller, "each")
    for _ in range(2):
        await tell(network, me["member_id"])

    class Buggy(Box):
        async def send(self, letter: Letter) -> Outcome:
            if not self.letters:
                self.letters.append(letter)
                raise KeyError("a bug")
            return await super().send(letter)

    await send_due(network.context.pool, {"email": Buggy()}, network.clock)
    assert sorted((d["status"], d["last_error"]) for d in await deliveries(network)) == [
        ("sent", None),
        ("waiting", "failed_KeyError"),
    ]


# The e-mail of the day


async def test_the_day_is_told_at_six_in_the_evening_of_the_city(
    network: Network, clock: TestClock
) -> None:
    body = {"city_id": "reunion", "name": "Saint-Denis", "timezone": "Indian/Reunion"}
    await network.admin.made("/v1/cities", body)
    there, here = await network.member("reunion"), await network.member("nantes")
    read, after_six = await network.member("nantes"), await network.member("nantes")
    pool, box = network.context.pool, Box()

    async def letters() -> list[str]:
        box.letters.clear()
        await service.make_digests(pool, clock())
        await send_due(pool, {"email": box}, clock)
        return sorted(str(letter.email) for letter in box.letters)

    clock.now = datetime(2026, 11, 22, 13, 59, tzinfo=UTC)
    for member in (there, here, read):
        await tell(network, member["member_id"], minutes=30)
    await tell(network, here["member_id"], "exchange.agreed")
    assert await letters() == []
    clock.now = datetime(2026, 11, 22, 14, 1, tzinfo=UTC)  # 18:01 in Saint-Denis
    assert await letters() == [there["email"]]
    assert await letters() == []
    clock.now = datetime(2026, 11, 22, 17, 1, tzinfo=UTC)  # 18:01 in Nantes
    await tell(network, after_six["member_id"])
    reader = await network.caller(read["email"])
    await reader.post("/v1/notices/read-all")
    assert await letters() == [here["email"]]
    (letter,) = box.letters
    assert letter.is_digest
    assert [notice.kind for notice in letter.notices] == ["exchange.agreed", "transfer.received"]
    clock.now = datetime(2026, 11, 23, 17, 1, tzinfo=UTC)
    assert await letters() == [after_six["email"]]
    clock.now = datetime(2026, 11, 24, 17, 1, tzinfo=UTC)
    assert await letters() == []


async def test_two_workers_make_one_email_of_the_day(network: Network, clock: TestClock) -> None:
    me = await network.member("nantes")
    await tell(network, me["member_id"])
    clock.now = datetime(2026, 11, 22, 17, 5, tzinfo=UTC)
    pool = network.context.pool
    made = await asyncio.gather(*(service.make_digests(pool, clock()) for _ in range(4)))
    assert sum(made) == 1
    assert len(await deliveries(network)) == 1


async def test_who_changes_to_the_email_of_the_day_is_not_told_twice(
    network: Network, clock: TestClock
) -> None:
    caller, me = await network.somebody("nantes")
    await prefer(caller, "each")
    await tell(network, me["member_id"])
    await send_due(network.context.pool, {"email": Box()}, clock)
    await prefer(caller, "daily")
    clock.now = datetime(2026, 11, 22, 17, 5, tzinfo=UTC)
    assert await service.make_digests(network.context.pool, clock()) == 0


# Browsers


def browser(endpoint: str = "https://push.example/one", **more: Any) -> dict[str, Any]:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return {
        "endpoint": endpoint,
        "expirationTime": None,
        "keys": {"p256dh": to_base64url(to_point(key)), "auth": to_base64url(bytes(16))},
        **more,
    }


async def test_a_browser_is_subscribed_listed_and_forgotten(network: Network) -> None:
    caller, me = await network.somebody("nantes")
    other, _ = await network.somebody("nantes")
    made = await caller.made("/v1/me/push-subscriptions", browser())
    assert set(made) == {"subscription_id", "push_service", "created_at"}
    assert made["push_service"] == "push.example"
    assert (await caller.get("/v1/me/push-subscriptions")).json() == {"items": [made]}
    assert (await other.get("/v1/me/push-subscriptions")).json() == {"items": []}
    path = f"/v1/me/push-subscriptions/{made['subscription_id']}"
    assert (await other.send("DELETE", path)).status_code == 404
    await tell(network, me["member_id"])
    assert [d["channel"] for d in await deliveries(network)] == ["push"]
    assert (await caller.send("DELETE", path)).json() == made
    assert (await caller.send("DELETE", path)).status_code == 404
    assert await deliveries(network) == []


async def test_a_browser_that_changes_hands_serves_the_last_who_subscribed(
    network: Network,
) -> None:
    first, _ = await network.somebody("nantes")
    second, _ = await network.somebody("nantes")
    body = browser()
    await first.made("/v1/me/push-subscriptions", body)
    await second.made("/v1/me/push-subscriptions", body)
    assert (await first.get("/v1/me/push-subscriptions")).json() == {"items": []}
    assert len((await second.get("/v1/me/push-subscriptions")).json()["items"]) == 1


async def test_of_many_browsers_the_latest_ten_are_kept(network: Network) -> None:
    caller, _ = await network.somebody("nantes")
    for number in range(12):
        network.clock.advance(seconds=1)
        await caller.made("/v1/me/push-subscriptions", browser(f"https://p{number}.example/x"))
    items = (await caller.get("/v1/me/push-subscriptions")).json()["items"]
    assert [item["push_service"] for item in items] == [f"p{n}.example" for n in range(2, 12)]


LEADING_INSIDE = [
    ({"endpoint": "http://push.example/a"}, "body.endpoint"),
    ({"endpoint": "https://127.0.0.1/a"}, "body.endpoint"),
    ({"endpoint": "https://[::1]/a"}, "body.endpoint"),
    ({"endpoint": "https://identity-db/a"}, "body.endpoint"),
    ({"endpoint": "https://push.example/" + "a" * 1000}, "body.endpoint"),
    ({"keys": {"p256dh": "!", "auth": "AAAAAAAAAAAAAAAAAAAAAA"}}, "body.keys.p256dh"),
    ({"keys": {"p256dh": "AAAA", "auth": "AAAAAAAAAAAAAAAAAAAAAA"}}, "body.keys.p256dh"),
    ({"keys": {**browser()["keys"], "auth": "AAAA"}}, "body.keys.auth"),
    ({"keys": {**browser()["keys"], "auth": "ééé"}}, "body.keys.auth"),
]


async def test_a_subscription_that_leads_inside_is_refused_by_field(
    network: Network, subtests: pytest.Subtests
) -> None:
    caller, _ = await network.somebody("nantes")
    for change, field in LEADING_INSIDE:
        with subtests.test(str(change)):
            answer = await caller.post("/v1/me/push-subscriptions", browser(**change))
            assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)
            assert (await caller.get("/v1/me/push-subscriptions")).json() == {"items": []}


async def test_without_a_contact_there_is_no_push(
    make_database: Callable[[str, Path], Awaitable[str]], clock: TestClock
) -> None:
    off = make_settings(await make_database("identity", MIGRATIONS))
    async with running(off, clock) as network:
        await network.city("nantes")
        caller, _ = await network.somebody("nantes")
        answer = await caller.post("/v1/me/push-subscriptions", browser())
        assert (answer.status_code, answer.json()["code"]) == (409, "push_not_available")
        preferences = (await caller.get("/v1/me/notifications")).json()
        assert (preferences["push_key"], preferences["email_available"]) == (None, False)


async def test_an_endpoint_is_kept_in_no_other_table(network: Network) -> None:
    """It is a secret: the idempotency table must not hold it beside the subscription."""
    caller, _ = await network.somebody("nantes")
    await caller.made("/v1/me/push-subscriptions", browser("https://push.example/s3cr3t"))
    found = await network.conn.fetchval(
        "SELECT count(*) FROM idempotency WHERE body::text LIKE '%s3cr3t%'"
    )
    assert found == 0


async def test_only_what_is_needed_is_in_a_letter(network: Network) -> None:
    caller, me = await network.somebody("nantes")
    await prefer(caller, "each", language="en")
    await tell(network, me["member_id"], minutes=45)
    box = Box()
    await send_due(network.context.pool, {"email": box}, network.clock)
    (letter,) = box.letters
    assert (letter.language, letter.email, letter.is_digest) == ("en", me["email"], False)
    assert replace(letter, email=None).subscription is None
