"""The right to leave: a city takes its package to a database, settings and secrets of its own, by
the commands, and goes on clearing with the others over the same broker, and being audited."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from bank_world import MIGRATIONS, Bank, settings_for
from clearing_world import SECRET, Federation, two_time_banks
from test_clearing_kafka import until, working
from test_moving_city import PASSPHRASE, settle_in
from tokens import ISSUER, key_set
from typer.testing import CliRunner, Result

from common.auth import TokenVerifier
from common.clock import utc_now
from common.consumer import Consumer
from common.events import Topic
from common.kafka import ensure_topics
from common.outbox import Relay
from common.worker import keep_running
from copass_verify.__main__ import main
from timebank import consumers
from timebank.__main__ import cli
from timebank.app import create_app, topics_of
from timebank.cities import catching_up, package
from timebank.cities.catching_up import keep_catching_up
from timebank.clearing.keys import Vault
from timebank.clearing.service import keep_clearing
from timebank.log import recall, service
from timebank.log.recall import keep_recalled
from timebank.log.service import keep_logging
from timebank.settings import Settings

OWN_SECRET = "own" * 12


@pytest.fixture
def kafka(
    kafka_bootstrap: str, kafka_idempotent: bool, kafka_fetch_wait_ms: int, topic_prefix: str
) -> dict[str, Any]:
    return {
        "kafka_bootstrap": kafka_bootstrap,
        "kafka_idempotent": kafka_idempotent,
        "kafka_fetch_wait_ms": kafka_fetch_wait_ms,
        "kafka_topic_prefix": topic_prefix,
    }


async def command(kafka: dict[str, Any], dsn: str, *words: str, secret: str = SECRET) -> Result:
    """A command as an operator gives it, with the environment that its deployment has."""
    environment = {
        "TIMEBANK_DATABASE_URL": dsn,
        "TIMEBANK_KEY_SECRET": secret,
        "TIMEBANK_PACKAGE_SECRET": PASSPHRASE,
        "TIMEBANK_TOKEN_ISSUER": ISSUER,
        "TIMEBANK_JWKS_URL": f"{ISSUER}/jwks",
        **{f"TIMEBANK_{name.upper()}": str(value) for name, value in kafka.items()},
    }
    return await asyncio.to_thread(CliRunner().invoke, cli, list(words), env=environment)


@asynccontextmanager
async def own_time_bank(dsn: str, kafka: dict[str, Any]) -> AsyncIterator[Bank]:
    """The API and the worker of Nantes alone, with a secret of its own."""
    settings = settings_for(dsn, key_secret=OWN_SECRET, cities="nantes", shard="own", **kafka)
    app = create_app(settings)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app.router.lifespan_context(app))
        identity = await stack.enter_async_context(
            httpx.AsyncClient(
                transport=httpx.MockTransport(lambda _: httpx.Response(200, json=key_set()))
            )
        )
        http = await stack.enter_async_context(
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app, raise_app_exceptions=False),
                base_url="http://timebank.test",
            )
        )
        app.state.verifier = TokenVerifier(
            issuer=ISSUER, audience="timebank", jwks_url=f"{ISSUER}/jwks", http=identity
        )
        bank = Bank(app, http, dsn, app.state.pool)
        tasks = [
            asyncio.create_task(keep_running(str(work), work)) for work in works(settings, bank)
        ]
        try:
            yield bank
        finally:
            for running in tasks:
                running.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def works(settings: Settings, bank: Bank) -> list[Callable[[], Awaitable[None]]]:
    """What the worker does for clearing, the log and arrivals."""
    vault = Vault(OWN_SECRET)
    handlers = consumers.clearing_handlers(vault, utc_now)
    recalled = asyncio.Event()
    return [
        Relay(settings, topics_of(settings), utc_now).run,
        Consumer(settings, bank.pool, settings.group("timebank-clearing"), handlers).run,
        partial(keep_clearing, bank.pool, vault, utc_now),
        partial(keep_recalled, settings, bank.pool, recalled, utc_now),
        partial(keep_logging, bank.dsn, bank.pool, vault, utc_now, recalled),
        partial(keep_catching_up, settings, bank.pool, vault, utc_now),
    ]


@pytest.fixture
async def federation(
    make_database: Callable[[str, Path], Awaitable[str]], kafka: dict[str, Any]
) -> AsyncIterator[Federation]:
    async with two_time_banks(make_database, utc_now) as made:
        await made.bank("nantes").join("bruno", "nantes")
        # Identity's own service would have made them: a worker that arrives reads them.
        named = [Topic(name, compacted=True) for name in (consumers.CITIES, consumers.MEMBERS)]
        await ensure_topics(settings_for(made.bank("nantes").dsn, **kafka), named)
        async with working(made, **kafka):
            await made.make_keys()
            yield made


async def agree(federation: Federation, a: str, b: str) -> None:
    terms = {
        "city_id": a,
        "peer_city_id": b,
        "limit_out_minutes": 600,
        "limit_in_minutes": 600,
    }

    async def is_proposed() -> bool:
        answer = await federation.steward(a).post("agreements", terms)
        return answer.status_code == 201  # once its key is heard of

    async def is_active() -> bool:
        await federation.steward(b).post(f"agreements/{b}/{a}/accept", {})
        shown = await federation.steward(a).get("agreements", city_id=a)
        states = {each["peer_city_id"]: each["state"] for each in shown.json()["items"]}
        return states.get(b) == "active"

    await until(is_proposed)
    await until(is_active)


async def settled(federation: Federation, city: str, transfer_id: str) -> None:
    async def is_settled() -> bool:
        return await federation.state(city, transfer_id) == "settled"

    await until(is_settled)


async def log_all(federation: Federation) -> None:
    for bank in federation.each:
        await service.work_once(bank.pool, federation.vault, utc_now())


async def test_a_city_starts_its_own_time_bank_and_goes_on(
    federation: Federation,
    make_database: Callable[[str, Path], Awaitable[str]],
    kafka: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(package.SCRYPT, "n", 2**4)
    monkeypatch.setattr(service, "CHECKPOINT_EVERY", timedelta(seconds=1))
    monkeypatch.setattr(recall, "IDLE_MS", 100)
    monkeypatch.setattr(catching_up, "LOOK_EVERY_S", 0.1)
    await agree(federation, "nantes", "bourges")
    sent = await federation.send("anna", "nantes", "chloe", "bourges", 40)
    await settled(federation, "nantes", sent["transfer_id"])
    await log_all(federation)
    west = federation.bank("nantes")
    file, dsn = tmp_path / "nantes.zip", await make_database("timebank", MIGRATIONS)

    # On their way in both directions as the city leaves.
    leaves = await federation.send("anna", "nantes", "chloe", "bourges", 20)
    comes = await federation.send("chloe", "bourges", "anna", "nantes", 15)
    done = await command(kafka, west.dsn, "export-city", "nantes", "--to", str(file))
    assert done.exit_code == 0, done.output
    assert "It has moved" in done.output
    late = await federation.send("chloe", "bourges", "anna", "nantes", 1)  # to nowhere
    refused = await command(kafka, west.dsn, "export-city", "nantes", "--cancel")
    assert (refused.exit_code, "has moved" in refused.output) == (1, True)
    assert (await command(kafka, west.dsn, "rotate-key", "nantes")).exit_code == 1

    done = await command(kafka, dsn, "import-city", str(file), secret=OWN_SECRET)
    assert done.exit_code == 0, done.output
    again = await command(kafka, dsn, "import-city", str(file), secret=OWN_SECRET)
    assert (again.exit_code, "nothing to do" in again.output) == (0, True)
    async with own_time_bank(dsn, kafka) as own:
        settle_in(federation, "nantes", own)
        await settled(federation, "nantes", leaves["transfer_id"])
        await settled(federation, "bourges", comes["transfer_id"])
        await settled(federation, "bourges", late["transfer_id"])

        # A key of its own, that who ran it before never had; then both ways once more.
        done = await command(
            kafka, dsn, "rotate-key", "nantes", "--overlap-hours", "0", secret=OWN_SECRET
        )
        assert done.exit_code == 0, done.output

        async def is_known() -> bool:
            peer = federation.bank("bourges").pool
            return (
                await peer.fetchval(
                    "SELECT octet_length(peer_key) > 0 AND (SELECT version = 2 FROM peer_city"
                    " WHERE city_id = 'nantes') FROM agreement WHERE city_id = 'bourges'"
                )
                is True
            )

        await until(is_known)
        there = await federation.send("anna", "nantes", "chloe", "bourges", 7)
        back = await federation.send("chloe", "bourges", "anna", "nantes", 3)
        await settled(federation, "nantes", there["transfer_id"])
        await settled(federation, "bourges", back["transfer_id"])
        sizes = "SELECT (SELECT count(*) FROM transfer), (SELECT max(size) FROM log_checkpoint)"

        async def all_is_signed() -> bool:
            await log_all(Federation({"bourges": federation.bank("bourges")}, utc_now))
            counted = await own.pool.fetchrow(sizes)
            return counted is not None and counted[0] == counted[1]

        await until(all_is_signed, timeout_s=45)
        assert await federation.balance("nantes", "anna") == -40 - 20 + 15 + 1 - 7 + 3
    paths = []
    for name, where in (("own", dsn), ("centre", federation.bank("bourges").dsn)):
        paths.append(str(tmp_path / f"{name}.zip"))
        done = await command(kafka, where, "bundle", paths[-1])
        assert done.exit_code == 0, done.output
    capsys.readouterr()
    code = main(["--json", *paths])
    said = json.loads(capsys.readouterr().out)
    assert (code, said["faults"]) == (0, [])
    assert {each["city"] for each in said["cities"]} == {"nantes", "bourges"}
