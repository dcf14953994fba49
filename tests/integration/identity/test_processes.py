"""The real processes: commands of the terminal, uvicorn, the worker and a broker."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from email import message_from_bytes
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
import pytest
from aiosmtpd.controller import Controller
from identity_network import ADMIN_LOGIN, PASSWORD, Caller
from typer.testing import CliRunner

from common import db, kafka
from common.cli import console
from common.clock import utc_now
from common.events import Event, Topic, from_message, to_message
from common.ids import new_id
from copass.servers import unused_port
from identity import store
from identity.__main__ import app
from identity.app import MIGRATIONS
from identity.notices import service as notices
from identity.notices.domain import Notice
from identity.settings import IdentitySettings

Environment = dict[str, str]


@pytest.fixture
async def environment(
    make_database: Callable[[str, Path], Awaitable[str]],
    kafka_bootstrap: str,
    kafka_idempotent: bool,
    kafka_fetch_wait_ms: int,
    topic_prefix: str,
) -> Environment:
    port = unused_port()
    return {
        "IDENTITY_PORT": str(port),
        "IDENTITY_WORKER_PORT": str(unused_port()),
        "IDENTITY_DATABASE_URL": await make_database("identity", MIGRATIONS),
        "IDENTITY_KAFKA_BOOTSTRAP": kafka_bootstrap,
        "IDENTITY_KAFKA_IDEMPOTENT": str(kafka_idempotent),
        "IDENTITY_KAFKA_FETCH_WAIT_MS": str(kafka_fetch_wait_ms),
        "IDENTITY_KAFKA_TOPIC_PREFIX": topic_prefix,
        "IDENTITY_TOKEN_ISSUER": f"http://127.0.0.1:{port}",
        "IDENTITY_JWKS_URL": f"http://127.0.0.1:{port}/.well-known/jwks.json",
        "IDENTITY_CARD_PEPPER": "pepper " * 8,
        "IDENTITY_KEY_SECRET": "key secret " * 4,
    }


def settings_of(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> IdentitySettings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return IdentitySettings()


async def start(environment: Environment, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "identity",
        *arguments,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def run(environment: Environment, *arguments: str) -> tuple[int, str]:
    """A command of the terminal in this process: starting Python costs more than the command."""
    result = await asyncio.to_thread(CliRunner().invoke, app, arguments, env=environment)
    return result.exit_code, result.output


@asynccontextmanager
async def serving(environment: Environment, command: str, port: str) -> AsyncIterator[str]:
    """A process that is ready, stopped again by SIGTERM, which it obeys with exit code 0."""
    process = await start(environment, command)
    base = f"http://127.0.0.1:{environment[port]}"
    try:
        async with httpx.AsyncClient() as http:
            for _ in range(900):  # 90 s: a busy machine starts slowly
                assert process.returncode is None, "the process ended"
                try:
                    if (await http.get(f"{base}/readyz")).status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.1)
            else:
                pytest.fail(f"{command} did not become ready")
        yield base
        process.terminate()
        await asyncio.wait_for(process.communicate(), 20)
        assert process.returncode in (0, -15)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def test_bootstrap_makes_one_admin_however_often_it_runs(environment: Environment) -> None:
    secret = {**environment, "IDENTITY_BOOTSTRAP_PASSWORD": PASSWORD}
    code, first = await run(secret, "bootstrap", "--email", ADMIN_LOGIN)
    assert (code, first.split()[1:]) == (0, ["was", "made"])
    code, again = await run(secret, "bootstrap", "--email", ADMIN_LOGIN.upper())
    assert (code, again.split()[0]) == (0, first.split()[0])
    assert "was there already" in again
    code, output = await run({**environment}, "bootstrap", "--email", ADMIN_LOGIN)
    assert code != 0
    assert "password" in output.lower()
    code, output = await run(secret, "bootstrap", "--email", "аdmin@federation.invalid")
    assert code == 1
    assert PASSWORD not in output


async def test_rotate_keys_says_which_key_signs_when(environment: Environment) -> None:
    async def rotated(*options: str) -> str:
        code, output = await run(environment, "rotate-keys", *options)
        assert code == 0
        assert "signs from" in output
        return output.splitlines()[-1]

    first, waiting, again = [await rotated() for _ in range(3)]
    assert first.split()[0] != waiting.split()[0]
    assert again == waiting
    assert (await rotated("--compromised")).split()[0] not in first + waiting


async def test_a_block_travels_from_the_api_through_the_worker_to_kafka(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(environment, monkeypatch)
    await run(
        {**environment, "IDENTITY_BOOTSTRAP_PASSWORD": PASSWORD},
        "bootstrap",
        "--email",
        ADMIN_LOGIN,
    )
    async with (
        serving(environment, "api", "IDENTITY_PORT") as base,
        serving(environment, "worker", "IDENTITY_WORKER_PORT"),
        httpx.AsyncClient(base_url=base) as http,
    ):
        form = {"grant_type": "password", "username": ADMIN_LOGIN, "password": PASSWORD}
        token = (await http.post("/v1/oauth/token", data=form)).json()["access_token"]
        jwks = jwt.PyJWKSet.from_dict((await http.get("/.well-known/jwks.json")).json())
        assert jwt.decode(
            token, jwks.keys[0], algorithms=["EdDSA"], audience="access", issuer=base
        )["roles"] == ["federation_admin", "member"]
        admin = Caller(http, token)
        await admin.made(
            "/v1/cities", {"city_id": "nantes", "name": "Nantes", "timezone": "Europe/Paris"}
        )
        member = await admin.made("/v1/members", {"city_id": "nantes", "display_name": "Invented"})
        card = await admin.made(
            "/v1/cards", {"member_id": member["member_id"], "type": "uid", "uid": "04A3B2C1"}
        )
        await admin.post(f"/v1/cards/{card['card_id']}/block", {"reason": "lost"})
        states = await read_until(
            settings, "identity.cards.v1", lambda data: data["status"] == "blocked"
        )
        assert [(state["card_id"], state["version"]) for state in states] == [
            (card["card_id"], 1),
            (card["card_id"], 2),
        ]
        await tell_of_a_place(settings, member["member_id"], http, admin)


async def tell_of_a_place(
    settings: IdentitySettings, member_id: str, http: httpx.AsyncClient, admin: Caller
) -> None:
    """The worker hears of a place, and then a steward may give it."""
    place_id = uuid4()
    steward = await admin.made(
        "/v1/members",
        {
            "city_id": "nantes",
            "display_name": "Steward",
            "email": "steward@nantes.invalid",
            "password": PASSWORD,
        },
    )
    await admin.put(
        f"/v1/members/{steward['member_id']}/roles", {"roles": ["steward"], "places": {}}
    )
    form = {"grant_type": "password", "username": steward["email"], "password": PASSWORD}
    caller = Caller(http, (await http.post("/v1/oauth/token", data=form)).json()["access_token"])
    event = Event(
        id=new_id(),
        type="places.place.changed.v1",
        source="/places",
        subject=str(place_id),
        time=utc_now(),
        data={"place_id": str(place_id), "version": 1, "city_id": "nantes", "name": "Invented"},
    )
    key, value, headers = to_message(event)
    await kafka.ensure_topics(settings, HEARD)
    await publish(settings, "places.places.v1", key, value, headers)
    path = f"/v1/members/{member_id}/roles"
    body = {"roles": [], "places": {str(place_id): "staff"}}
    for _ in range(10):
        answer = await caller.put(path, body)
        if answer.status_code == 200:
            break
    assert answer.json()["places"] == body["places"]


# What the worker waits for before it hears anything: the topics of the others.
HEARD = [Topic("places.places.v1", compacted=True), Topic("timebank.notices.v1", compacted=False)]


async def publish(
    settings: IdentitySettings,
    topic: str,
    key: bytes,
    value: bytes,
    headers: list[tuple[str, bytes]],
) -> None:
    producer = kafka.make_producer(settings)
    await producer.start()
    try:
        await producer.send_and_wait(
            settings.prefixed(topic), value=value, key=key, headers=headers
        )
    finally:
        await kafka.stop(producer)


class Mailbox:
    """What an SMTP server took."""

    def __init__(self) -> None:
        self.taken: list[tuple[list[str], bytes]] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.taken.append((envelope.rcpt_tos, envelope.content))
        return "250 taken"


class SlowMailbox(Mailbox):
    """Takes the first message and does not say so: its sender is left in the dark."""

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        answer = await super().handle_DATA(server, session, envelope)
        if len(self.taken) == 1:
            await asyncio.sleep(60)
        return answer


@pytest.fixture
async def told(environment: Environment) -> AsyncIterator[tuple[db.Connection, UUID]]:
    """A connection, and Ana, who wants an e-mail of each notice, in English."""
    connection = await db.connect(environment["IDENTITY_DATABASE_URL"], name="test")
    member_id = new_id()
    await connection.execute(
        "INSERT INTO member (member_id, display_name, email, status, roles, places, version,"
        " created_at)"
        " VALUES ($1, 'Ana', 'ana@exemple.invalid', 'active', '{}', '{}', 1, now())",
        member_id,
    )
    await connection.execute(
        "INSERT INTO notification_preference VALUES ($1, 'each', false, 'en')", member_id
    )
    yield connection, member_id
    await connection.close()


@contextmanager
def mail_server(mailbox: Mailbox) -> Iterator[Environment]:
    """The settings that lead to an SMTP server."""
    port = unused_port()
    controller = Controller(mailbox, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield {
            "IDENTITY_SMTP_URL": f"smtp://127.0.0.1:{port}",
            "IDENTITY_MAIL_FROM": "Copass <rien@copass.example>",
            "IDENTITY_PORTAL_URL": "https://p.example",
        }
    finally:
        controller.stop()


async def wait_until_sent(connection: db.Connection) -> None:
    async with asyncio.timeout(60):
        while not await connection.fetchval(
            "SELECT EXISTS (SELECT FROM notification_delivery WHERE status = 'sent')"
        ):
            await asyncio.sleep(0.1)


async def test_the_worker_hears_of_a_notice_and_sends_it(
    environment: Environment,
    told: tuple[db.Connection, UUID],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mailbox, (connection, member_id) = Mailbox(), told
    settings = settings_of(environment, monkeypatch)
    event = Event(
        id=new_id(),
        type="timebank.notice.v1",
        source="/timebank",
        subject=str(member_id),
        time=utc_now(),
        data={
            "notice_id": str(new_id()),
            "member_id": str(member_id),
            "kind": "transfer.received",
            "subject": {"minutes": 120},
            "created_at": utc_now().isoformat(),
        },
    )
    await kafka.ensure_topics(settings, HEARD)
    for _ in range(2):  # the broker may tell it twice
        await publish(settings, "timebank.notices.v1", *to_message(event))
    with mail_server(mailbox) as mail:
        async with serving({**environment, **mail}, "worker", "IDENTITY_WORKER_PORT"):
            await wait_until_sent(connection)
    ((recipients, content),) = mailbox.taken
    assert recipients == ["ana@exemple.invalid"]
    assert b"You have received 2 h." in content


async def test_killed_after_the_message_left_the_next_worker_sends_it_under_the_same_id(
    environment: Environment, told: tuple[db.Connection, UUID]
) -> None:
    mailbox, (connection, member_id) = SlowMailbox(), told
    notice = Notice(new_id(), member_id, "transfer.received", {"minutes": 120}, utc_now())
    async with connection.transaction():
        await notices.take_in(connection, notice, email_on=True, push_on=False, now=utc_now())
    with mail_server(mailbox) as mail:
        process = await start({**environment, **mail}, "worker")
        async with asyncio.timeout(60):
            while not mailbox.taken:
                await asyncio.sleep(0.05)
        process.kill()
        await process.communicate()
        status = await connection.fetchval("SELECT status FROM notification_delivery")
        assert status == "waiting"
        # As if the two minutes had passed that the dead worker had asked for.
        await connection.execute("UPDATE notification_delivery SET next_at = now()")
        async with serving({**environment, **mail}, "worker", "IDENTITY_WORKER_PORT"):
            await wait_until_sent(connection)
    ids = {message_from_bytes(content)["Message-ID"] for _, content in mailbox.taken}
    assert len(mailbox.taken) == 2
    assert len(ids) == 1


async def test_what_was_given_up_is_listed_and_tried_again(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Wide enough for a whole id; the console took its width when it was first imported.
    monkeypatch.setattr(console, "_width", 250)
    member_id, delivery_id = new_id(), new_id()
    connection = await db.connect(environment["IDENTITY_DATABASE_URL"], name="test")
    try:
        await connection.execute(
            "INSERT INTO member (member_id, display_name, status, roles, places, version,"
            " created_at) VALUES ($1, 'Ana', 'active', '{}', '{}', 1, now())",
            member_id,
        )
        await connection.execute(
            "INSERT INTO notification_delivery (delivery_id, member_id, channel, digest_on, status,"
            " attempts, last_error, created_at, ended_at) VALUES"
            " ($1, $2, 'email', '2026-11-22', 'given_up', 7, 'smtp_421', now(), now())",
            delivery_id,
            member_id,
        )
        code, listed = await run(environment, "deliveries", "list")
        assert code == 0
        assert str(delivery_id) in listed
        assert "smtp_421" in listed
        code, output = await run(environment, "deliveries", "retry")
        assert (code, output.split()[0]) == (0, "1")
        status = await connection.fetchval("SELECT status FROM notification_delivery")
        assert status == "waiting"
    finally:
        await connection.close()


async def read_until(
    settings: IdentitySettings, topic: str, done: Callable[[dict[str, Any]], bool]
) -> list[dict[str, Any]]:
    """The data of a topic's events from its beginning, up to the one that is awaited."""
    consumer = kafka.make_consumer(settings, topic, group=f"test-{uuid4().hex[:8]}")
    seen: list[dict[str, Any]] = []
    await consumer.start()
    try:
        async with asyncio.timeout(30):
            while not (seen and done(seen[-1])):
                record = await consumer.getone()
                seen.append(from_message(record.value, record.headers).data)
    finally:
        await kafka.stop(consumer)
    return seen


async def test_expired_rows_are_forgotten(environment: Environment) -> None:
    connection = await db.connect(environment["IDENTITY_DATABASE_URL"], name="test")
    try:
        old = datetime(2020, 1, 1, tzinfo=UTC)
        await connection.execute(
            "INSERT INTO login_failures (key, failures, expires_at) VALUES ('k', 1, $1)", old
        )
        await store.delete_expired(connection, datetime.now(UTC), rows_max=10)
        assert await connection.fetchval("SELECT count(*) FROM login_failures") == 0
    finally:
        await connection.close()
