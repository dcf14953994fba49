"""The six laws (tests/support/ledger_laws.py) after every step of a book in a real PostgreSQL.

Driven through the functions that the routes call, with group commit, and looked at from outside:
the rows as the owner of the database reads them, the events as they stand in the outbox. Transfers,
reversals, holds, limits, confirmed work that counts towards a pledge, gifts. By default some
hundred steps; LAW_STEPS=10000 says otherwise.

Planted and caught, each alone, with the triggers and CHECKs of the database taken away, so that the
laws alone must notice:

- conservation: who receives gets a minute too much;
- balance: the balance kept beside the account forgets a minute now and then;
- floor: the floor forgets what is held;
- holds: the sweeper ends holds and frees nothing;
- refusal: limits are written first and refused afterwards;
- replay: of a batch, the last transfer is not told; the end of a hold is not told.

Beyond the laws: keys are forgotten, so that a request sent again is posted again.
With all that is its own, the database refuses the first four and the last itself.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))

from ledger_laws import Law, LawBroken
from ledger_postgres import HAPPENS, Books, World

from common import db, outbox
from timebank import domain, service, store
from timebank.domain import Account, Actor, Leg, Rejected, Transfer
from timebank.holds import service as holds
from timebank.holds.domain import Hold
from timebank.settings import as_app_role

STEPS = int(os.environ.get("LAW_STEPS", "200"))
STEPS_A_LIFE = 25


@pytest.fixture
def world(dsn: str) -> Iterator[World]:
    with asyncio.Runner() as runner:

        async def start() -> World:
            pool = await db.create_pool(as_app_role(dsn), name="laws", max_size=4)
            return World(runner, pool, await db.connect(dsn, name="laws-owner"))

        running = runner.run(start())
        yield running
        runner.run(running.owner.close())
        runner.run(running.pool.close())


def lives(steps: int, **more: Any) -> settings:
    return settings(
        max_examples=max(2, steps // STEPS_A_LIFE),
        stateful_step_count=STEPS_A_LIFE,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        **more,
    )


def lives_in(world: World) -> type[Books]:
    return type("Lives", (Books,), {"world": world})


@pytest.mark.timeout(120 + STEPS // 5)
def test_the_laws_hold_in_postgresql(world: World) -> None:
    # So few steps are the same ones every time: they must have met all that is in HAPPENS.
    few = STEPS < 2_000
    wanted = lives(STEPS + STEPS // 4, derandomize=few)
    run_state_machine_as_test(lives_in(world), settings=wanted)
    assert world.seen["steps"] >= STEPS
    missing = {what for what in HAPPENS if not world.seen[what]}
    assert not missing, "\n".join(map(str, sorted(world.seen.items())))


# ── Planted bugs ────────────────────────────────────────────────────────────────────────────────

Plant = Callable[[pytest.MonkeyPatch], None]
PLANTS: dict[str, tuple[Law | None, Plant]] = {}


def planted(law: Law | None) -> Callable[[Plant], Plant]:
    """A bug, and the law that it breaks (None: what holds beyond the laws)."""

    def keep(plant: Plant) -> Plant:
        PLANTS[plant.__name__] = law, plant
        return plant

    return keep


@planted("conservation")
def who_receives_gets_a_minute_more(patch: pytest.MonkeyPatch) -> None:
    real = domain.post_leg

    def post_leg(account: Account, leg: Leg) -> domain.Posting:
        return real(account, replace(leg, minutes=leg.minutes + (leg.minutes > 0)))

    patch.setattr(domain, "post_leg", post_leg)


@planted("balance")
def a_balance_forgets_a_minute(patch: pytest.MonkeyPatch) -> None:
    real = domain.after

    def after(account: Account, posting: domain.Posting, posted_at: datetime) -> Account:
        done = real(account, posting, posted_at)
        # At both ends: what the book sums to is as it should be.
        sign = 1 if posting.minutes > 0 else -1
        return replace(done, balance_minutes=done.balance_minutes - sign)

    patch.setattr(domain, "after", after)


@planted("floor")
def the_floor_forgets_what_is_held(patch: pytest.MonkeyPatch) -> None:
    def left_minutes(self: Account) -> int | None:
        floor = self.floor_minutes
        return None if floor is None else self.balance_minutes - floor

    patch.setattr(Account, "left_minutes", property(left_minutes))


@planted("holds")
def the_sweeper_frees_nothing(patch: pytest.MonkeyPatch) -> None:
    real = holds.expire_hold

    def expire_hold(hold: Hold, payer: Account, now: datetime) -> tuple[Hold, Account] | None:
        done = real(hold, payer, now)
        return done and (done[0], payer)

    patch.setattr(holds, "expire_hold", expire_hold)


@planted("refusal")
def limits_are_written_first(patch: pytest.MonkeyPatch) -> None:
    real = service.change_limits

    async def change_limits(
        conn: db.Conn, actor: Actor, account_id: UUID, changes: Any, now: datetime
    ) -> Account | Rejected:
        outcome = await real(conn, actor, account_id, changes, now)
        if isinstance(outcome, Rejected):
            account = (await store.lock_accounts(conn, [account_id]))[account_id]
            await store.save_limits(conn, account, set_by=actor.id, now=now)
        return outcome

    patch.setattr(service, "change_limits", change_limits)


@planted("replay")
def the_last_of_a_batch_is_not_told(patch: pytest.MonkeyPatch) -> None:
    real = outbox.add_many

    async def add_many(conn: db.Conn, *, items: Any, **more: Any) -> None:
        await real(conn, items=items[:-1] if len(items) > 1 else items, **more)

    patch.setattr(outbox, "add_many", add_many)


@planted("replay")
def the_end_of_a_hold_is_not_told(patch: pytest.MonkeyPatch) -> None:
    real = holds.tell

    async def tell(conn: db.Conn, hold: Hold, now: datetime) -> None:
        if hold.status == "open":
            await real(conn, hold, now)

    patch.setattr(holds, "tell", tell)


@planted(None)
def keys_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    async def find_nothing(*_: Any, **__: Any) -> tuple[list[Transfer], dict[Any, Any]]:
        return [], {}

    patch.setattr(store, "find_done_before", find_nothing)


DATABASE_REFUSES = (
    "who_receives_gets_a_minute_more",
    "a_balance_forgets_a_minute",
    "the_floor_forgets_what_is_held",
    "the_sweeper_frees_nothing",
    "keys_are_forgotten",
)


async def disarm(owner: db.Connection) -> None:
    """Take from the database all that would stop a careless program."""
    for table in ("transfer", "posting", "account", "hold", "account_limit"):
        await owner.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
    await owner.execute("ALTER TABLE transfer_key DROP CONSTRAINT transfer_key_pkey")
    await owner.execute("DROP INDEX transfer_reverses")
    for row in await owner.fetch(
        "SELECT conname FROM pg_constraint WHERE contype = 'c' AND conrelid = 'account'::regclass"
    ):
        await owner.execute(f'ALTER TABLE account DROP CONSTRAINT "{row["conname"]}"')


def quick() -> settings:
    """The same lives every time, and no search for the shortest of them."""
    return lives(1_000, derandomize=True, phases=[Phase.generate])


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_bug_is_caught_by_the_laws(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    law, plant = PLANTS[name]
    world.do(disarm(world.owner))
    plant(monkeypatch)
    with pytest.raises(AssertionError) as caught:
        run_state_machine_as_test(lives_in(world), settings=quick())
    if law is None:
        assert not isinstance(caught.value, LawBroken)
    else:
        assert isinstance(caught.value, LawBroken)
        assert law in caught.value.broken


@pytest.mark.parametrize("name", DATABASE_REFUSES)
def test_the_database_refuses_a_planted_bug(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    PLANTS[name][1](monkeypatch)
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        run_state_machine_as_test(lives_in(world), settings=quick())
