"""What a million cards cost: redis_bytes_per_card, tap_latency_scale, rebuild_rate.

The cards are put on identity's topic as identity would, for members who exist. Only for a network
that is thrown away afterwards: identity does not know them.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from statistics import median

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from redis.asyncio import Redis
from rich.console import Console

from copass.bench.frozen import Frozen, frozen_copy
from copass.bench.results import Better, Result, Series
from copass.bench.taps import BenchError, Target, run_round
from copass.demo_data import DemoNetwork, demo_id
from copass.statistics import percentile

TOPIC = "identity.cards.v1"
EVENT_TYPE = "identity.card.changed.v1"
FEW = 10_000
CHUNK = 5_000
PROJECTED_WITHIN_S = 900.0
QUIET_S = 2.0


async def measure_scale(
    target: Target,
    network: DemoNetwork,
    *,
    cards: int,
    pairs: int,
    seconds: float,
    console: Console,
) -> list[Result]:
    redis = Redis.from_url(target.redis_url)
    try:
        before = await count_cards(redis)
        await publish_cards(target, network, FEW)
        await projected(redis, before + FEW)
        async with frozen_copy(target, "few") as few_cards:
            # Now, because to be copied took it a buffer, which it keeps.
            small = int((await redis.info("memory"))["used_memory"])
            started = time.perf_counter()
            await publish_cards(target, network, cards - FEW)
            console.print(f"  {cards} cards published in {time.perf_counter() - started:.0f} s")
            await projected(redis, before + cards)
            large = int((await redis.info("memory"))["used_memory"])
            async with frozen_copy(target, "many") as many_cards:
                rounds = [
                    await latencies_ms(target, (few_cards, many_cards), number, seconds)
                    for number in range(pairs)
                ]
        few, many = ([one[n] for one in rounds] for n in (0, 1))
        ratio = median(large_ms / small_ms for small_ms, large_ms in rounds)

        read_per_s = await bare_consumer(target.kafka)
        rebuilt_per_s = await rebuild(redis, before + cards)
    finally:
        await redis.aclose()
    bytes_per_card = (large - small) / (cards - FEW)
    console.print(
        f"  {bytes_per_card:.0f} bytes per card; p50 {median(many):.3f} ms against "
        f"{median(few):.3f} ms; rebuilt {rebuilt_per_s:.0f}/s, read {read_per_s:.0f}/s"
    )
    at = datetime.now(UTC).isoformat(timespec="seconds")
    lower: Better = "lower"
    latencies = (
        Series(f"{cards} cards", "ms", tuple(many)),
        Series(f"{FEW} cards", "ms", tuple(few)),
    )
    return [
        Result("redis_bytes_per_card", bytes_per_card, "bytes", at, goal=400, better=lower),
        Result(
            "tap_latency_scale",
            ratio,
            "ratio",
            at,
            baseline=median(few),
            goal=1.1,
            better=lower,
            series=latencies,
        ),
        Result(
            "rebuild_rate",
            rebuilt_per_s / read_per_s,
            "ratio",
            at,
            baseline=read_per_s,
            goal=0.15,
        ),
        Result("rebuild_rate_per_second", rebuilt_per_s, "cards/s", at),
    ]


async def publish_cards(target: Target, network: DemoNetwork, count: int) -> None:
    """Cards of random numbers, shared out among the demo members."""
    producer = AIOKafkaProducer(
        bootstrap_servers=target.kafka, acks="all", linger_ms=5, max_batch_size=256 * 1024
    )
    members = [str(member.member_id) for member in network.members]
    now = datetime.now(UTC).isoformat().encode()
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_source", b"/identity"),
        ("ce_type", EVENT_TYPE.encode()),
        ("ce_time", now),
        ("content-type", b"application/json"),
        ("ce_logepoch", b"0"),
    ]
    run = secrets.token_hex(8)
    await producer.start()
    try:
        for start in range(0, count, CHUNK):
            sends = []
            for n in range(start, min(start + CHUNK, count)):
                card_id = str(demo_id("bench", f"{run}/{n}"))
                state = {
                    "card_id": card_id,
                    "version": 1,
                    "credential_hash": secrets.token_hex(32),
                    "credential_type": "uid",
                    "member_id": members[n % len(members)],
                    "status": "active",
                }
                own = [*headers, ("ce_id", card_id.encode()), ("ce_subject", card_id.encode())]
                sends.append(
                    await producer.send(
                        TOPIC, key=card_id.encode(), value=orjson.dumps(state), headers=own
                    )
                )
            await asyncio.gather(*sends)
    finally:
        await producer.stop()


async def count_cards(redis: Redis) -> int:
    return int(await redis.hget("projection:documents", "card") or 0)


async def projected(redis: Redis, cards: int) -> None:
    """Waits until Redis holds so many card documents. Raises BenchError after a long while."""
    deadline = time.monotonic() + PROJECTED_WITHIN_S
    while await count_cards(redis) < cards:
        if time.monotonic() > deadline:
            raise BenchError(f"only {await count_cards(redis)} of {cards} cards are in Redis")
        await asyncio.sleep(0.05)


async def latencies_ms(
    target: Target, copies: Sequence[Frozen], number: int, seconds: float
) -> tuple[float, ...]:
    """The median of one client at each copy; who begins changes from round to round."""
    found: dict[str, float] = {}
    for copy in copies if number % 2 == 0 else reversed(copies):
        load = await run_round(copy.url, target.cards, 1, seconds)
        found[copy.url] = percentile(load.latencies_s, 0.5) * 1000
        async with Redis.from_url(copy.redis_url) as redis:
            await redis.delete("taps")  # nobody takes them from there
    return tuple(found[copy.url] for copy in copies)


async def bare_consumer(kafka: str) -> float:
    """Messages per second that aiokafka reads from the cards' topic, doing nothing to them."""
    consumer = AIOKafkaConsumer(
        TOPIC, bootstrap_servers=kafka, auto_offset_reset="earliest", fetch_max_wait_ms=10
    )
    await consumer.start()
    count, started, last = 0, time.perf_counter(), time.perf_counter()
    try:
        while time.perf_counter() - last < QUIET_S:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                count += len(records)
                last = time.perf_counter()
    finally:
        await consumer.stop()
    return count / (last - started)


async def rebuild(redis: Redis, cards: int) -> float:
    """Cards per second from the moment Redis lost everything until all are there again."""
    await redis.flushall()
    started = time.perf_counter()
    await projected(redis, cards)
    return cards / (time.perf_counter() - started)
