"""kill -9 any process while people tap: nothing answered is lost, nothing is applied twice.

The default is a smoke test of three of the processes; FULL=1 kills each. SEED_OF_FAULTS=… repeats
a run.
"""

import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from seeded_network import Copass, SeededNetwork, copass_in, seeded_network

from copass.demo_api import new_tap, open_api
from copass.demo_check import converged, differences
from copass.demo_data import demo_network
from copass.demo_state import need_state, service_urls, steward_of

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]

FULL = os.environ.get("FULL") == "1"
SEED = int(os.environ.get("SEED_OF_FAULTS") or random.SystemRandom().randrange(1_000_000))
SERVERS = ("postgres", "valkey", "kafka")
ON_THE_WAY = ("access-api", "access-worker", "identity-worker")  # of a tap, and of a blocked card
OTHERS = ("identity-api", "timebank-api", "timebank-worker", "places-api", "places-worker")
TAPS_PER_SECOND = 8
CALM_S = 2.0  # between two kills
SECONDS_EACH = 12 if FULL else 9
SETTLE_WITHIN_S = 60.0
DENIED_WITHIN_S = 30.0


@pytest.fixture
def copass(server_folder: Path) -> Iterator[Copass]:
    with copass_in(server_folder) as unseeded:
        yield unseeded


@pytest.fixture(scope="module")
def network() -> Iterator[SeededNetwork]:
    with seeded_network() as running:
        yield running


async def test_no_answered_tap_is_lost_whatever_dies(
    network: SeededNetwork, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    dice = random.Random(SEED)
    victims = [*SERVERS, *ON_THE_WAY, *OTHERS]
    if not FULL:
        victims = [dice.choice(SERVERS), dice.choice(ON_THE_WAY), dice.choice(victims)]
    dice.shuffle(victims)
    record_property("plan", f"SEED_OF_FAULTS={SEED}: {', '.join(victims)}")
    minutes = len(victims) * SECONDS_EACH / 60
    report = tmp_path / "report.json"
    playing = network.copass.begin(
        *("simulate", "--verify", "--report", str(report), "--seed", str(SEED)),
        *("--taps-per-second", str(TAPS_PER_SECOND), "--minutes", str(minutes)),
    )
    try:
        await asyncio.sleep(CALM_S * 2)
        for name in victims:
            await asyncio.to_thread(network.kill_and_wait, name)
            await asyncio.sleep(CALM_S)
        said, _ = playing.communicate(timeout=minutes * 60 + 300)
    finally:
        playing.kill()
        playing.wait()
    assert playing.returncode == 0, f"SEED_OF_FAULTS={SEED}\n{said}"
    found = json.loads(report.read_text(encoding="utf-8"))
    assert found["unanswered"] == []
    assert found["refused"] == []
    assert found["history"] == {"missing": [], "duplicated": [], "different": []}
    assert await converged(network.stores, SETTLE_WITHIN_S) == []


async def test_a_broker_that_forgot_everything_costs_nothing(network: SeededNetwork) -> None:
    demo = demo_network()
    card, door = demo.card_of("demo-loser"), demo.place("demo-night").doors[0]
    login = steward_of("bourges")
    path = f"/v1/cards/{card.card_id}"
    key = need_state(network.home, demo).reader_keys[door.door_id]
    async with open_api(service_urls(network.home)) as api:
        assert (await api.tap(new_tap(door.door_id, card.uid), key)).granted
        stopped = network.copass.run("stop", "kafka")
        assert stopped.returncode == 0, stopped.stderr
        body = {"reason": "lost"}
        await api.command("identity", "POST", f"{path}/block", body, login=login)
        started = network.copass.run("start", "kafka")
        assert started.returncode == 0, started.stderr

        deadline = time.monotonic() + DENIED_WITHIN_S
        while (answer := await api.tap(new_tap(door.door_id, card.uid), key)).granted:
            assert time.monotonic() < deadline, "still granted"
        assert answer.reason == "credential_blocked"
        await api.command("identity", "POST", f"{path}/unblock", None, login=login)
        assert await converged(network.stores, SETTLE_WITHIN_S) == []


async def test_the_check_sees_a_copy_that_was_changed_behind_the_services(
    network: SeededNetwork,
) -> None:
    """A check that never was red counts for nothing."""
    member = str(demo_network().member("demo-cook").member_id)
    redis = Redis.from_url(network.stores.redis_url)
    document = await redis.get(f"member:{member}")
    try:
        await redis.set(f"member:{member}", b"999 active {}")
        assert any(member in line for line in await differences(network.stores))
        await redis.delete(f"member:{member}")
        assert any(member in line for line in await differences(network.stores))
    finally:
        await redis.set(f"member:{member}", document)
        await redis.aclose()
    assert await converged(network.stores, 10) == []


@pytest.mark.whole
def test_a_seed_cut_off_is_finished_by_the_next(copass: Copass) -> None:
    up = copass.run("up", "--detach", timeout_s=300)
    assert up.returncode == 0, up.stdout + up.stderr
    for seconds in (2, 5):
        seeding = copass.begin("seed")
        time.sleep(seconds)
        seeding.kill()
        seeding.communicate()
    again = copass.run("seed", timeout_s=600)
    assert again.returncode == 0, again.stdout + again.stderr
    assert need_state(copass.home, demo_network()).complete
    told = copass.run("demo", timeout_s=300)
    assert told.returncode == 0, told.stdout + told.stderr
