"""revoke_to_deny_p99: from the answer to a block to the first denial at a door, under load."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.console import Console

from copass.bench.load import steady, tap_requests
from copass.bench.results import Result, Series
from copass.bench.taps import BenchError, Target
from copass.demo import Story, block_to_deny, expect
from copass.statistics import percentiles

BACKGROUND_PER_SECOND = 500.0
BACKGROUND_CLIENTS = 8
BACKGROUND_SHARE_MIN = 0.9  # with less the network was not under the load that is claimed


async def measure_revocation(
    target: Target, story: Story, *, trials: int, console: Console
) -> list[Result]:
    """One Result in milliseconds; its series holds every trial."""
    card, door = story.network.card_of("demo-loser"), story.door("demo-night")
    latencies_ms: list[float] = []
    background = steady(
        target.access_url,
        tap_requests(target.cards),
        clients=BACKGROUND_CLIENTS,
        per_second=BACKGROUND_PER_SECOND,
    )
    try:
        async with background as load:
            for _ in range(trials):
                await story.unblock(card)
                await story.until(door, card.uid, "grant")
                latency_ms, answer = await block_to_deny(story, card, door)
                expect(answer, "deny", "credential_blocked")
                latencies_ms.append(latency_ms)
    finally:
        await story.unblock(card)
    if load.per_second < BACKGROUND_SHARE_MIN * BACKGROUND_PER_SECOND:
        raise BenchError(f"only {load.per_second:.0f} taps/s in the background")
    figures = percentiles(latencies_ms)
    console.print(
        f"  {trials} trials under {load.per_second:.0f} taps/s: "
        + ", ".join(f"{name} {value:.1f} ms" for name, value in figures.items())
    )
    at = datetime.now(UTC).isoformat(timespec="seconds")
    series = (Series("block to deny", "ms", tuple(latencies_ms)),)
    return [
        Result(
            "revoke_to_deny_p99", figures["p99"], "ms", at, goal=100, better="lower", series=series
        ),
        Result("revoke_to_deny_p50", figures["p50"], "ms", at, better="lower"),
    ]
