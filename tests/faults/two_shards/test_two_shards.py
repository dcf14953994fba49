"""Two time banks joined by Kafka alone, while their processes, databases and broker are killed.

People give within their cities and to others; a history is kept of what they were told. During the
faults every snapshot of the books must be sound; afterwards all comes to rest by itself, and what
was said is what is there, in the books and in signed logs that an auditor's program verifies.

The default is a smoke of one minute; FULL=1 is the whole matrix with several seeds, and tries the
checks on bugs that are planted in the time bank (planted.py). SEED_OF_FAULTS=… repeats a run.
"""

import asyncio
import os
import random
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pytest
from planted import BUGS
from shards_checks import (
    not_as_said,
    not_at_rest,
    not_in_the_right_hands,
    not_logged,
    not_published,
    settle,
    verified,
    write_bundles,
)
from shards_faults import Fault, kills, matrix, smoke, strike_all
from shards_forks import BACKED_UP, fork_is_refused
from shards_history import Clients, History
from shards_snapshots import Watch
from shards_world import World, back_up, ended, two_shards

from common.clock import utc_now

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]

FULL = os.environ.get("FULL") == "1"
SEED = int(os.environ.get("SEED_OF_FAULTS") or random.SystemRandom().randrange(1_000_000))
RUNS = 3 if FULL else 1
CLIENTS = 5
# Between two faults.
SOON_S = (1.0, 2.0)
CALM_S = (5.0, 15.0) if FULL else SOON_S
RECOVERED_WITHIN_S = 30.0
RECOVERED_AFTER = 60  # attempts of each shard, of which 99 % were answered
HEALTHY_S = 2.0
SETTLED_WITHIN_S = 60.0


@dataclass
class Run:
    """A whole run: what happened, and what was wrong."""

    world: World
    history: History = field(default_factory=History)
    wrong: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    notes: dict[tuple[str, int], str] = field(default_factory=dict)
    healed_at: datetime | None = None

    def say(self, line: str) -> None:
        self.told.append(f"{utc_now():%H:%M:%S} {line}")

    def calm(self, when: datetime) -> bool:
        """Whether nothing was wrong from then on. Never in the smoke: it runs beside others."""
        return FULL and self.healed_at is not None and when > self.healed_at

    async def faults(
        self, plan: list[Fault], dice: random.Random, calm_s: tuple[float, float] = SOON_S
    ) -> None:
        """People give, and things break, until all is well again."""
        watch = Watch(self.world)
        clients = Clients(self.world, dice, self.history)
        watching = asyncio.create_task(watch.run())
        giving = asyncio.create_task(clients.run(CLIENTS))
        try:
            await strike_all(self.world, plan, dice, calm_s, self.say)
            self.say("healed")
            await self.recover()
            self.healed_at = utc_now()
            await asyncio.sleep(HEALTHY_S)
            clients.stop.set()
            async with asyncio.timeout(60):
                await giving
            self.say("no more wishes")
            waiting = await settle(self.world, self.history, SETTLED_WITHIN_S)
            self.wrong += [f"still on its way: {each}" for each in waiting]
            self.say("at rest" if not waiting else "not at rest")
        finally:
            await ended(giving)
            await ended(watching)
        self.wrong += [*self.history.wrong, *watch.wrong]
        if watch.looks < len(plan):
            self.wrong.append(f"only {watch.looks} snapshots were seen")
        self.notes = watch.notes

    async def recover(self) -> None:
        """Wait until 99 % of what is asked of each shard is answered."""
        before = {name: len(done) for name, done in self.history.attempts.items()}
        loop = asyncio.get_running_loop()
        until = loop.time() + RECOVERED_WITHIN_S
        while loop.time() < until:
            await asyncio.sleep(0.2)
            since = [done[before[name] :] for name, done in self.history.attempts.items()]
            last = [answers[-RECOVERED_AFTER:] for answers in since]
            if all(len(one) == RECOVERED_AFTER and sum(one) > 0.99 * len(one) for one in last):
                return
        self.wrong.append(f"not recovered {RECOVERED_WITHIN_S:.0f} s after the last fault")

    async def check(self, folder: Path) -> None:
        world, history = self.world, self.history
        self.wrong += await not_as_said(world, history)
        self.wrong += await not_at_rest(world)
        self.wrong += await not_in_the_right_hands(world, history)
        self.wrong += await not_published(world)
        self.wrong += await not_logged(world, self.notes, history, self.calm)
        code, said = await verified(await write_bundles(world, folder), "--cosigned", "1")
        if code != 0:
            self.wrong.append(f"copass-verify: {said}")
        self.say("checked")

    @property
    def story(self) -> str:
        said = Counter((wish.said, wish.crosses) for wish in self.history.wishes)
        lines = [*self.told, str(said), self.world.logs(), *map(str, self.wrong[:40])]
        return "\n".join(lines)


@pytest.mark.parametrize("run", range(RUNS))
async def test_nothing_is_lost_between_two_time_banks(
    run: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    seed = SEED + run
    dice = random.Random(seed)
    async with two_shards() as world:
        done = Run(world)
        done.say(f"SEED_OF_FAULTS={seed}")
        await back_up(world.shard_of(BACKED_UP), tmp_path / "backup")
        await done.faults(matrix(dice) if FULL else smoke(dice), dice, CALM_S)
        await done.check(tmp_path)
        sys.stderr.write(f"{done.story}\n")
        record_property("story", done.story)
        assert not done.wrong, done.story
        said = Counter(wish.said for wish in done.history.wishes)
        assert said["ok"] > 50
        assert said["fail"] > 0
        refused = await fork_is_refused(world, tmp_path / "backup", tmp_path)
        assert not refused, "\n".join(refused)


# By what each must be seen, so that a machine that is only slow does not count.
SEEN_BY = {
    "skip_the_outbox": "transfers without an answer",
    "mark_unsent_as_published": "committed, and never published",
    "drop_the_inbox": "a dead letter",
    "commit_the_offset_first": "is not taken back",
    "lose_a_return": "and should at",
    "forget_keys": "and there 2 times",
    "answer_before_it_is_kept": "but None in",
}
PLANS = {
    # Where the broker does not lose its log, no consumer reads it again from its start.
    "commit_the_offset_first": kills(("west-worker", "centre-worker") * 5),
    "answer_before_it_is_kept": kills(("west-postgres", "centre-postgres") * 3),
    "forget_keys": kills(("west-postgres", "centre-api", "centre-postgres", "west-api") * 2),
}


@pytest.mark.whole
@pytest.mark.parametrize("bug", BUGS)
async def test_the_checks_see_a_bug_that_was_planted(bug: str, tmp_path: Path) -> None:
    """A check that never was red counts for nothing.

    Planted, one at a time: answers that skip the outbox; outbox rows marked as published and not
    sent; no inbox and no look whether it was decided before; the offset committed before the
    message is handled; a return that goes to the commons and not to the payer; requests of which
    the key is forgotten; a database that says yes before it has written.
    """
    dice = random.Random(SEED)
    async with two_shards(bug) as world:
        run = Run(world)
        await run.faults(PLANS.get(bug) or smoke(dice), dice)
        await run.check(tmp_path)
        sys.stderr.write(f"{run.story}\n")
        assert any(SEEN_BY[bug] in line for line in run.wrong), run.story
