"""The six laws (tests/support/ledger_laws.py) after every step of a book in a real PostgreSQL.

Driven through the functions that the routes call, with group commit, and looked at from outside:
the rows as the owner of the database reads them, the events as they stand in the outbox. By default
some hundred steps; LAW_STEPS=10000 says otherwise.

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
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))

from ledger_laws import (
    AccountLine,
    HoldLine,
    Law,
    LawBroken,
    Picture,
    PostingLine,
    check,
    unchanged,
)

from common import db, outbox
from common.ids import new_id
from timebank import domain, service, store
from timebank.domain import Account, Actor, Leg, Rejected, Transfer, TransferRequest
from timebank.holds import service as holds
from timebank.holds.domain import Hold
from timebank.service import CityState, Ledger, MemberState
from timebank.settings import as_app_role

STEPS = int(os.environ.get("LAW_STEPS", "300"))
STEPS_A_LIFE = 25
START = datetime.fromisoformat("2026-11-22T10:00:00+00:00")
HAPPENS = (
    *("transfer done", "reverse done", "hold done", "post done", "expire done", "limits done"),
    *("transfer insufficient_time", "reverse already_reversed", "void done"),
)
Answer = TypeVar("Answer")


@dataclass
class World:
    """A time bank without its edge: each life gets a city of its own in it."""

    runner: asyncio.Runner
    pool: db.Pool
    owner: db.Connection
    now: datetime = START
    cities: int = 0
    seen: Counter[str] = field(default_factory=Counter)

    def do(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        return self.runner.run(work)

    async def in_transaction(
        self, work: Callable[[db.Conn], Coroutine[Any, Any, Answer]]
    ) -> Answer:
        """As the edge does, but that a refusal is committed too: it must leave nothing."""
        async with self.pool.acquire() as conn, conn.transaction():
            return await work(conn)


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


PAIRS = [(a, b) for a in range(5) for b in range(5) if a != b]
pairs = st.sampled_from([*PAIRS, (0, 0)])
minutes = st.sampled_from([*range(1, 160, 6), 300, 2**53 - 1])
places = st.integers(0, 10**6)


class Books(RuleBasedStateMachine):
    """Two members, one who is erased some day, an organisation, and the commons."""

    world: ClassVar[World]

    def __init__(self) -> None:
        super().__init__()
        world = self.world
        world.cities += 1
        world.now = START
        self.city = f"law-{world.cities}"
        self.steward = Actor(f"steward-{self.city}", self.city, steward=True)
        self.ledger = Ledger(world.pool, lambda: world.now)
        self.transfers: list[tuple[TransferRequest, Transfer]] = []
        self.holds: list[UUID] = []
        self.member_ids = [new_id() for _ in range(3)]
        self.before_all = world.do(self.last_event())
        world.do(self.found_city())

    async def last_event(self) -> int:
        last: int = await self.world.owner.fetchval("SELECT coalesce(max(id), 0) FROM outbox")
        return last

    async def found_city(self) -> None:
        world = self.world

        async def found(conn: db.Conn) -> Account | Rejected:
            city = CityState(self.city, "active", "Europe/Paris", 1)
            await service.apply_city(conn, city, world.now, new_id)
            for member_id in self.member_ids:
                member = MemberState(member_id, self.city, "active", 1)
                await service.apply_member(conn, member, world.now, new_id)
            return await service.open_organisation(
                conn,
                self.steward,
                account_id=new_id(),
                city_id=self.city,
                owner_id=new_id(),
                floor_minutes=-60,
                ceiling_minutes=200,
                now=world.now,
            )

        await world.in_transaction(found)
        rows = await world.owner.fetch(
            "SELECT account_id FROM account WHERE city_id = $1 AND kind <> 'solidarity_fund'"
            " ORDER BY kind, account_id",
            self.city,
        )
        self.accounts: list[UUID] = [row["account_id"] for row in rows]  # commons, members, org

    # ── What happens ────────────────────────────────────────────────────────────────────────────

    @initialize()
    def somebody_has_something(self) -> None:
        self.post([self.request((0, n), 90) for n in range(1, 5)])

    @rule(pair=pairs, minutes=minutes, key=st.none() | st.integers(0, 5).map(str))
    def transfer(self, pair: tuple[int, int], minutes: int, key: str | None) -> None:
        self.post([self.request(pair, minutes, key=key)])

    @rule(asked=st.lists(st.tuples(pairs, minutes), min_size=2, max_size=8))
    def transfer_at_once(self, asked: list[tuple[tuple[int, int], int]]) -> None:
        """Requests that share a transaction, the refused ones among them too."""
        self.post([self.request(pair, minutes) for pair, minutes in asked])

    @rule(
        first=st.lists(
            st.tuples(st.integers(0, 4), minutes),
            min_size=2,
            max_size=3,
            unique_by=lambda leg: leg[0],
        ),
        last=st.integers(0, 4),
    )
    def transfer_among_many(self, first: list[tuple[int, int]], last: int) -> None:
        legs = [*first, (last, -sum(minutes for _, minutes in first))]
        self.post([self.request_of(tuple(Leg(self.accounts[n], m) for n, m in legs))])

    @rule(pair=pairs, more=st.sampled_from([0, 1]))
    def give_all(self, pair: tuple[int, int], more: int) -> None:
        """As much as the floor of who gives seems to allow."""
        line = self.picture().accounts[self.accounts[pair[0]]]
        if line.floor_minutes is not None and pair[0] != pair[1]:
            self.post([self.request(pair, line.balance_minutes - line.floor_minutes + more)])

    @rule(place=places, twice=st.booleans())
    def reverse(self, place: int, twice: bool) -> None:
        """Once, or twice at the same time."""
        if not self.transfers:
            return
        _, original = self.transfers[place % len(self.transfers)]
        legs = domain.take_back(original, self.steward)
        if isinstance(legs, Rejected):
            return
        count = 1 + twice
        self.post([self.request_of(legs, reverses=original.id) for _ in range(count)])
        taken = [item for _, item in self.transfers if item.reverses == original.id]
        assert len(taken) <= 1, "taken back twice"

    @rule(place=places)
    def send_again(self, place: int) -> None:
        if not self.transfers:
            return
        request, transfer = self.transfers[place % len(self.transfers)]
        before = self.picture()
        # As a route does for who gave no transfer_id.
        again = self.world.do(self.ledger.post(replace(request, transfer_id=new_id())))
        assert isinstance(again, Transfer), "a request sent again is done again"
        assert again.id == transfer.id, "a request sent again is done again"
        unchanged(before, self.picture())

    @rule(pair=pairs, minutes=minutes, ends=st.sampled_from([300, 60, 20]))
    def hold(self, pair: tuple[int, int], minutes: int, ends: int) -> None:
        world = self.world
        request = self.request(pair, minutes)
        expires_at = world.now + timedelta(minutes=ends)
        placed = self.command(
            "hold", lambda conn: holds.place(conn, request, expires_at=expires_at, now=world.now)
        )
        if isinstance(placed, Hold):
            self.holds.append(placed.id)

    @rule(place=places, minutes=st.none() | st.integers(1, 60))
    def post_hold(self, place: int, minutes: int | None) -> None:
        if not self.holds:
            return
        hold_id = self.holds[place % len(self.holds)]
        self.command(
            "post",
            lambda conn: holds.post(
                conn,
                hold_id,
                self.steward,
                minutes=minutes,
                transfer_id=new_id(),
                key="k",
                now=self.world.now,
            ),
        )

    @rule(place=places)
    def void_hold(self, place: int) -> None:
        if self.holds:
            hold_id = self.holds[place % len(self.holds)]
            self.command(
                "void", lambda conn: holds.void(conn, hold_id, self.steward, self.world.now)
            )

    @rule(minutes=st.sampled_from([300, 60, -20, 20]), swept=st.sampled_from([True, True, False]))
    def time_passes(self, minutes: int, swept: bool) -> None:
        self.world.now += timedelta(minutes=minutes)
        if swept:
            expired = self.world.do(holds.expire_due(self.world.pool, self.world.now))
            self.world.seen["expire done"] += expired

    @rule(
        n=st.integers(0, 4),
        floor=st.sampled_from([-50, 0, -120, -600, None]),
        ceiling=st.sampled_from([None, None, 60, 300]),
    )
    def set_limits(self, n: int, floor: int | None, ceiling: int | None) -> None:
        limits = {"floor_minutes": floor, "ceiling_minutes": ceiling}
        self.command(
            "limits",
            lambda conn: service.change_limits(
                conn, self.steward, self.accounts[n], limits, self.world.now
            ),
        )

    @rule(place=st.integers(0, 7))
    def somebody_is_erased(self, place: int) -> None:
        """Rarely: their account closes, with what stands on it and what is held."""
        if place:
            return
        erased = MemberState(self.member_ids[2], self.city, "erased", 2)
        self.world.do(
            self.world.in_transaction(
                lambda conn: service.apply_member(conn, erased, self.world.now, new_id)
            )
        )

    # ── What holds ──────────────────────────────────────────────────────────────────────────────

    @invariant()
    def the_laws_hold(self) -> None:
        self.world.seen["steps"] += 1
        check(self.picture())

    def teardown(self) -> None:
        self.world.do(self.ledger.close())
        # What one life leaves open must not happen in the next.
        self.world.do(holds.expire_due(self.world.pool, START + timedelta(days=365)))

    # ── The rest ────────────────────────────────────────────────────────────────────────────────

    def request(
        self, pair: tuple[int, int], minutes: int, *, key: str | None = None
    ) -> TransferRequest:
        payer, payee = (self.accounts[n] for n in pair)
        return self.request_of((Leg(payer, -minutes), Leg(payee, minutes)), key=key)

    def request_of(
        self, legs: tuple[Leg, ...], *, key: str | None = None, reverses: UUID | None = None
    ) -> TransferRequest:
        return TransferRequest(
            new_id(), False, key or str(new_id()), self.steward, legs, None, reverses
        )

    def post(self, requests: list[TransferRequest]) -> None:
        """All at the same time."""
        before = self.picture()

        async def post_all() -> list[Transfer | Rejected]:
            return await asyncio.gather(*(self.ledger.post(request) for request in requests))

        outcomes = self.world.do(post_all())
        known = {transfer.id for _, transfer in self.transfers}
        for request, outcome in zip(requests, outcomes, strict=True):
            what = "reverse" if request.reverses else "transfer"
            self.note(what, outcome)
            if isinstance(outcome, Transfer) and outcome.id not in known:
                self.transfers.append((request, outcome))
                known.add(outcome.id)
        if all(isinstance(outcome, Rejected) for outcome in outcomes):
            unchanged(before, self.picture())

    def command(
        self, what: str, work: Callable[[db.Conn], Coroutine[Any, Any, Answer | Rejected]]
    ) -> Answer | Rejected:
        before = self.picture()
        outcome = self.world.do(self.world.in_transaction(work))
        self.note(what, outcome)
        if isinstance(outcome, Rejected):
            unchanged(before, self.picture())
        return outcome

    def note(self, what: str, outcome: object) -> None:
        self.world.seen[f"{what} {outcome.code if isinstance(outcome, Rejected) else 'done'}"] += 1

    def picture(self) -> Picture:
        return self.world.do(read_picture(self.world.owner, self.city, self.before_all))


async def read_picture(owner: db.Connection, city: str, before_all: int) -> Picture:
    """The city's book as it is committed, and what was told since `before_all`."""
    async with owner.transaction(isolation="repeatable_read", readonly=True):
        accounts = await owner.fetch("SELECT * FROM account WHERE city_id = $1", city)
        postings = await owner.fetch(
            "SELECT transfer_id, account_id, minutes, account_version, balance_minutes, posted_at"
            " FROM posting WHERE city_id = $1 ORDER BY account_id, account_version",
            city,
        )
        held = await owner.fetch("SELECT * FROM hold WHERE city_id = $1 ORDER BY hold_id", city)
        told = await owner.fetch(
            "SELECT type, payload FROM outbox"
            " WHERE id > $1 AND payload->>'city_id' = $2 ORDER BY id",
            before_all,
            city,
        )
        rest = await owner.fetchrow(
            "SELECT (SELECT count(*) FROM transfer WHERE city_id = $1),"
            " (SELECT count(*) FROM transfer_key WHERE requested_by = 'steward-' || $1),"
            " (SELECT count(*) FROM account_limit l JOIN account a USING (account_id)"
            "  WHERE a.city_id = $1)",
            city,
        )
    return Picture(
        accounts={
            row["account_id"]: AccountLine(
                row["status"] == "open",
                row["floor_minutes"],
                row["ceiling_minutes"],
                row["balance_minutes"],
                row["held_minutes"],
                row["version"],
            )
            for row in accounts
        },
        postings=[PostingLine(*row.values()) for row in postings],
        holds={
            row["hold_id"]: HoldLine(row["from_account"], row["minutes"], row["status"])
            for row in held
        },
        events=[(row["type"], row["payload"]) for row in told],
        rest=(tuple(rest or ()), sorted(accounts), held),
    )


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
