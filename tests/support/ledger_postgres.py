"""A book in PostgreSQL that lives: the machine of integration/timebank/test_law_machine.py."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, ClassVar, TypeVar
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from ledger_laws import AccountLine, HoldLine, Picture, PostingLine, check, unchanged

from common import db
from common.ids import new_id
from timebank import domain, service
from timebank.contributions import service as contributions
from timebank.contributions.domain import Beneficiary, Claim, Contribution, Draft
from timebank.domain import Account, Actor, Leg, Rejected, Transfer, TransferRequest
from timebank.holds import service as holds
from timebank.holds.domain import Hold
from timebank.pledges import service as pledges
from timebank.service import CityState, Ledger, MemberState
from timebank.solidarity import service as solidarity

START = datetime.fromisoformat("2026-11-22T10:00:00+00:00")
HAPPENS = (
    *("transfer done", "reverse done", "hold done", "post done", "expire done", "limits done"),
    *("transfer insufficient_time", "reverse already_reversed", "void done"),
    *("work done", "take back done", "gift done"),
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
        self, work: Callable[[db.Conn], Coroutine[Any, Any, Answer]], *, undone: bool = False
    ) -> Answer:
        """A refusal is committed too, and must leave nothing; or `undone`, as the edge does."""
        async with self.pool.acquire() as conn:
            transaction = conn.transaction()
            await transaction.start()
            try:
                outcome = await work(conn)
            except BaseException:
                await transaction.rollback()
                raise
            if undone and isinstance(outcome, Rejected):
                await transaction.rollback()
            else:
                await transaction.commit()
            return outcome


PAIRS = [(a, b) for a in range(5) for b in range(5) if a != b]
pairs = st.sampled_from([*PAIRS, (0, 0)])
minutes = st.sampled_from([*range(1, 160, 6), 300, 2**53 - 1])
places = st.integers(0, 10**6)


class Books(RuleBasedStateMachine):
    """Two members (the first with a pledge), one who is erased some day, an organisation, and the
    commons."""

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
        self.worked: list[UUID] = []
        self.other_steward = replace(self.steward, id=f"other-{self.city}")
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

        async def pledge(conn: db.Conn) -> object:
            return await pledges.start(
                conn,
                self.steward,
                pledge_id=new_id(),
                member_id=self.member_ids[0],
                minutes_per_month=600,
                skills=(),
                starts_on=world.now.date(),
                now=world.now,
            )

        await world.in_transaction(found)
        assert not isinstance(await world.in_transaction(pledge), Rejected)
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
        """Besides those that the rules about holds place when there is none."""
        self.place_hold(pair, minutes, ends)

    def place_hold(self, pair: tuple[int, int], minutes: int, ends: int) -> None:
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
        hold_id = self.some_hold(place)
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
        hold_id = self.some_hold(place)
        self.command("void", lambda conn: holds.void(conn, hold_id, self.steward, self.world.now))

    @rule(minutes=st.sampled_from([300, 60, -20, 20]), swept=st.sampled_from([True, True, False]))
    def time_passes(self, minutes: int, swept: bool) -> None:
        if minutes == 300:
            self.place_hold((0, 1), 15, 60)
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

    @rule(minutes=st.sampled_from([90, 30, 200]), for_all=st.booleans())
    def work(self, minutes: int, for_all: bool) -> None:
        """Worked and confirmed; what is for all counts towards the pledge, and is given on."""
        world = self.world
        member = Beneficiary("member", self.member_ids[1])
        beneficiary = Beneficiary("commons") if for_all else member
        claim = Claim(minutes, world.now.date(), "cooking")

        async def log_and_confirm(conn: db.Conn) -> Contribution | Rejected:
            draft = Draft(new_id(), self.member_ids[0], beneficiary, claim)
            logged = await contributions.log(conn, self.steward, [draft], now=world.now)
            if isinstance(logged, Rejected):
                return logged
            return await contributions.confirm(
                conn, draft.id, version=1, actor=self.other_steward, now=world.now, new_id=new_id
            )

        done = self.command("work", log_and_confirm, undone=True)
        if isinstance(done, Contribution):
            self.worked.append(done.id)

    @rule(place=places)
    def take_work_back(self, place: int) -> None:
        if not self.worked:
            return
        contribution_id = self.worked[place % len(self.worked)]
        self.command(
            "take back",
            lambda conn: contributions.reverse(
                conn, contribution_id, self.steward, self.world.now, new_id
            ),
            undone=True,
        )

    @rule(minutes=minutes)
    def give_to_the_fund(self, minutes: int) -> None:
        member_id = self.member_ids[0]
        self.command(
            "gift",
            lambda conn: solidarity.give(
                conn,
                Actor(str(member_id), self.city),
                gift_id=new_id(),
                member_id=member_id,
                minutes=minutes,
                anonymous=True,
                now=self.world.now,
            ),
            undone=True,
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
        self,
        what: str,
        work: Callable[[db.Conn], Coroutine[Any, Any, Answer | Rejected]],
        *,
        undone: bool = False,
    ) -> Answer | Rejected:
        before = self.picture()
        outcome = self.world.do(self.world.in_transaction(work, undone=undone))
        self.note(what, outcome)
        if isinstance(outcome, Rejected):
            unchanged(before, self.picture())
        return outcome

    def some_hold(self, place: int) -> UUID:
        """One of the last three, open or not; one that is not, where the commons gives none."""
        if not self.holds or place % 3 == 0:
            self.place_hold((0, 1 + place % 2), 15, 300)
        return self.holds[-1 - place % min(3, len(self.holds))] if self.holds else new_id()

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
