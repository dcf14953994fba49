"""The laws of contributions, after every step of any life that random people lead them through, in
a real PostgreSQL and through the functions that the routes call.

- credit: everybody has what was confirmed to them and not taken back, less what they confirmed;
- another: the minutes rest on the word of somebody who neither gave nor logged them;
- words: nothing that was said is lost or changed, and each word makes one more version;
- end: what has ended stays as it ended, but that a confirmed one can be taken back;
- refusal: a refused command leaves nothing at all;
- replay: the last that was told of each contribution is what it is.

Some hundred steps by default; LAW_STEPS says otherwise. Each bug in BUGS is planted alone and must
be caught; the constraints of the database catch some of them before a law can, and that counts.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from common import db
from common.ids import new_id
from timebank import service as ledger
from timebank.contributions import domain, service, store
from timebank.contributions.domain import Beneficiary, Claim, Contribution, Draft
from timebank.domain import Actor, Rejected
from timebank.service import CityState, MemberState
from timebank.settings import as_app_role

STEPS = int(os.environ.get("LAW_STEPS", "300"))
STEPS_A_LIFE = 20
START = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
# What must have happened for the laws to mean anything.
HAPPENS = (
    *("log done", "edit done", "dispute done", "confirm done", "accept done", "rule done"),
    *("withdraw done", "reverse done", "confirm self_confirmation", "confirm version_changed"),
    *("confirm contribution_ended", "race done"),
)

Step = Callable[[db.Conn], Coroutine[Any, Any, Any]]


class LawBroken(AssertionError):
    pass


def law(holds: bool, name: str, detail: object = "") -> None:
    if not holds:
        raise LawBroken(f"{name}: {detail}")


@dataclass
class World:
    """A time bank without its edge: each life gets a city of its own in it."""

    runner: asyncio.Runner
    pool: db.Pool
    owner: db.Connection
    cities: int = 0
    seen: Counter[str] = field(default_factory=Counter)

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)


@pytest.fixture
def world(dsn: str) -> Iterator[World]:
    with asyncio.Runner() as runner:

        async def start() -> World:
            pool = await db.create_pool(as_app_role(dsn), name="machine", max_size=4)
            return World(runner, pool, await db.connect(dsn, name="machine-owner"))

        running = runner.run(start())
        yield running
        runner.run(running.owner.close())
        runner.run(running.pool.close())


people = st.integers(0, 5)
minutes = st.sampled_from([1, 20, 45, 60, 120, 300, 1440])
places = st.integers(0, 10**6)


class Contributions(RuleBasedStateMachine):
    """Two residents, two stewards, a mediator and a connector, who all work for one another."""

    world: ClassVar[World]

    def __init__(self) -> None:
        super().__init__()
        self.world.cities += 1
        self.city = f"city-{self.world.cities}"
        self.now = START
        self.ids = [new_id() for _ in range(6)]
        roles: list[dict[str, bool]] = [
            *({}, {}, {"steward": True}, {"steward": True}),
            *({"mediator": True}, {"connector": True}),
        ]
        self.actors = [
            Actor(str(id_), self.city, **role) for id_, role in zip(self.ids, roles, strict=True)
        ]
        self.made: list[UUID] = []
        self.before: dict[UUID, tuple[Any, ...]] = {}
        self.world.do(self.found_city())

    async def found_city(self) -> None:
        async with self.world.pool.acquire() as conn, conn.transaction():
            city = CityState(self.city, "active", "Europe/Paris", 1)
            await ledger.apply_city(conn, city, START, new_id)
            for id_ in self.ids:
                member = MemberState(id_, self.city, "active", 1)
                await ledger.apply_member(conn, member, START, new_id)

    # ── What happens ────────────────────────────────────────────────────────────────────────────

    def act(self, name: str, *steps: Step) -> None:
        """Do commands, at once when there are several, and look at what they left."""

        async def one(step: Step) -> str:
            async with self.world.pool.acquire() as conn, conn.transaction():
                done = await step(conn)
                # Committed as it is: a refusal must have left nothing by itself.
                return done.code if isinstance(done, Rejected) else "done"

        async def all_of_them() -> list[str]:
            return await asyncio.gather(*(one(step) for step in steps))

        self.now += timedelta(seconds=1)
        before = self.world.do(self.picture())
        answers = self.world.do(all_of_them())
        for answer in answers:
            self.world.seen[f"{name} {answer}"] += 1
        self.world.seen["steps"] += 1
        if "done" not in answers:
            law(self.world.do(self.picture()) == before, "refusal", (name, answers))

    async def picture(self) -> tuple[Any, ...]:
        """All that a command could have left in this city."""
        rows = await self.world.owner.fetch(
            "SELECT to_jsonb(c) AS row FROM contribution c WHERE city_id = $1"
            " UNION ALL SELECT to_jsonb(v) FROM contribution_version v"
            "  JOIN contribution c USING (contribution_id) WHERE c.city_id = $1"
            " UNION ALL SELECT to_jsonb(a) FROM account a WHERE city_id = $1"
            " UNION ALL SELECT to_jsonb(p) FROM posting p WHERE city_id = $1",
            self.city,
        )
        told = await self.world.owner.fetchval("SELECT count(*) FROM outbox")
        return told, sorted(str(row["row"]) for row in rows)

    @initialize()
    def somebody_worked(self) -> None:
        for giver, to in ((0, 1), (1, 0), (0, 5), (0, None)):
            self.log(giver, to, 60, giver)
        # So that a short life meets all of it.
        self.edit(0, 120, 6)
        self.confirm(0, 1, 7)
        self.dispute(1, 20, 7)
        self.dispute(2, 45, 7)

    @rule(giver=people, to=people | st.none(), minutes=minutes, by=people)
    def log(self, giver: int, to: int | None, minutes: int, by: int) -> None:
        beneficiary = Beneficiary("commons") if to is None else Beneficiary("member", self.ids[to])
        claim = Claim(minutes, date(2026, 11, 20), "cooking", note="words")
        draft = Draft(new_id(), self.ids[giver], beneficiary, claim)

        async def step(conn: db.Conn) -> Any:
            done = await service.log(conn, self.actors[by], [draft], now=self.now)
            if not isinstance(done, Rejected):
                self.made.append(draft.id)
            return done

        self.act("log", step)

    def one(self, place: int, status: str = "") -> Contribution:
        """Any of them; mostly one of this status, if there is one."""

        async def find() -> Any:
            wanted = [
                id_ for id_ in self.made if place % 4 and self.before.get(id_, ("",))[0] == status
            ] or self.made
            return await store.find_contribution(self.world.owner, wanted[place % len(wanted)])

        found: Contribution = self.world.do(find())
        return found

    def side(self, contribution: Contribution, who: int) -> Actor:
        """Mostly somebody who may; else anybody."""
        likely = {
            6: self.actor_of(contribution.giver_id),
            7: self.actor_of(contribution.beneficiary.id or self.ids[5]),
            8: self.actors[2],
            9: self.actors[4],
        }
        return likely.get(who) or self.actors[who]

    def actor_of(self, id_: UUID) -> Actor:
        return self.actors[self.ids.index(id_)]

    def edit_step(self, one: Contribution, minutes: int, actor: Actor) -> Step:
        return lambda conn: service.edit(
            conn, one.id, lambda claim: replace(claim, minutes=minutes), actor, self.now
        )

    def confirm_step(self, one: Contribution, late: int, actor: Actor) -> Step:
        return lambda conn: service.confirm(
            conn, one.id, version=one.version - late, actor=actor, now=self.now, new_id=new_id
        )

    def dispute_step(self, one: Contribution, minutes: int, actor: Actor) -> Step:
        return lambda conn: service.dispute(
            conn, one.id, minutes=minutes, note="no", actor=actor, now=self.now
        )

    @rule(place=places, minutes=minutes, who=st.sampled_from([0, 6, 6]))
    def edit(self, place: int, minutes: int, who: int) -> None:
        one = self.one(place)
        self.act("edit", self.edit_step(one, minutes, self.side(one, who)))

    @rule(place=places, minutes=minutes | st.just(0), who=st.sampled_from([1, 6, 7, 7, 8]))
    def dispute(self, place: int, minutes: int, who: int) -> None:
        one = self.one(place)
        self.act("dispute", self.dispute_step(one, minutes, self.side(one, who)))

    @rule(place=places, late=st.sampled_from([0, 0, 1]), who=st.sampled_from([1, 3, 6, 7, 7, 8]))
    def confirm(self, place: int, late: int, who: int) -> None:
        one = self.one(place)
        self.act("confirm", self.confirm_step(one, late, self.side(one, who)))

    @rule(place=places, who=st.sampled_from([6, 6, 7]))
    def accept(self, place: int, who: int) -> None:
        one = self.one(place, "disputed")
        actor = self.side(one, who)
        self.act(
            "accept",
            lambda conn: service.accept(
                conn, one.id, version=one.version, actor=actor, now=self.now, new_id=new_id
            ),
        )

    @rule(place=places, minutes=minutes | st.just(0), who=st.sampled_from([6, 8, 9, 9, 9]))
    def mediate(self, place: int, minutes: int, who: int) -> None:
        one = self.one(place, "disputed")
        actor = self.side(one, who)
        self.act(
            "rule",
            lambda conn: service.rule(
                conn, one.id, minutes=minutes, note="so", actor=actor, now=self.now, new_id=new_id
            ),
        )

    @rule(place=places, who=st.sampled_from([6, 7]))
    def withdraw(self, place: int, who: int) -> None:
        one = self.one(place)
        actor = self.side(one, who)
        self.act("withdraw", lambda conn: service.withdraw(conn, one.id, actor, self.now))

    @rule(place=places, who=st.sampled_from([3, 6, 8]))
    def reverse(self, place: int, who: int) -> None:
        one = self.one(place, "confirmed")
        actor = self.side(one, who)
        self.act("reverse", lambda conn: service.reverse(conn, one.id, actor, self.now, new_id))

    @rule(place=places, minutes=minutes)
    def race(self, place: int, minutes: int) -> None:
        """Everybody at once."""
        one = self.one(place, "logged")
        giver, beneficiary = self.side(one, 6), self.side(one, 7)
        self.act(
            "race",
            self.confirm_step(one, 0, beneficiary),
            self.edit_step(one, minutes, giver),
            self.confirm_step(one, 0, self.actors[2]),
            self.dispute_step(one, minutes, beneficiary),
        )

    # ── What always holds ───────────────────────────────────────────────────────────────────────

    @invariant()
    def laws(self) -> None:
        self.world.do(self.check())

    async def check(self) -> None:
        owner = self.world.owner
        rows = await owner.fetch("SELECT * FROM contribution WHERE city_id = $1", self.city)
        words: dict[UUID, list[tuple[Any, ...]]] = {row["contribution_id"]: [] for row in rows}
        for row in await owner.fetch(
            "SELECT * FROM contribution_version WHERE contribution_id = ANY($1::uuid[])"
            " ORDER BY version",
            list(words),
        ):
            words[row["contribution_id"]].append(tuple(row)[1:])
        self.check_words(rows, words)
        for row in rows:
            rests_on = row["confirmed_by"]
            law(rests_on not in (str(row["giver_id"]), row["logged_by"]), "another", dict(row))
        await self.check_credit(rows)
        await self.check_replay(rows)

    def check_words(
        self, rows: list[asyncpg.Record], words: dict[UUID, list[tuple[Any, ...]]]
    ) -> None:
        for row in rows:
            said = words[row["contribution_id"]]
            law([word[0] for word in said] == [*range(1, row["version"] + 1)], "words", said)
            now = (row["status"], tuple(said), row["confirmed_minutes"], row["transfer_id"])
            before = self.before.get(row["contribution_id"])
            if before is not None:
                law(now[1][: len(before[1])] == before[1], "words", (before, now))
                if before[0] == "confirmed":
                    law(now[0] in ("confirmed", "reversed"), "end", (before, now))
                    law(now[1:] == before[1:], "end", (before, now))
                elif before[0] not in ("logged", "disputed"):
                    law(now == before, "end", (before, now))
            self.before[row["contribution_id"]] = now
        law(set(self.before) == set(words), "words", "a contribution is gone")

    async def check_credit(self, rows: list[asyncpg.Record]) -> None:
        credit: Counter[UUID | None] = Counter()
        for row in rows:
            if row["status"] == "confirmed":
                credit[row["giver_id"]] += row["confirmed_minutes"]
                credit[row["beneficiary_id"]] -= row["confirmed_minutes"]
        accounts = await self.world.owner.fetch(
            "SELECT owner_id, balance_minutes FROM account"
            " WHERE city_id = $1 AND kind IN ('member', 'commons')",
            self.city,
        )
        balances = {row["owner_id"]: row["balance_minutes"] for row in accounts}
        law(balances == {owner: credit[owner] for owner in balances}, "credit", balances)

    async def check_replay(self, rows: list[asyncpg.Record]) -> None:
        told = await self.world.owner.fetch(
            "SELECT DISTINCT ON (key) key, payload FROM outbox"
            " WHERE topic = 'timebank.contributions.v1' AND payload->>'city_id' = $1"
            " ORDER BY key, id DESC",
            self.city,
        )
        states = {row["key"]: row["payload"] for row in told}
        law(len(states) == len(rows), "replay", "one was never told")
        for row in rows:
            state = states[str(row["contribution_id"])]
            names = ("status", "confirmed_minutes", "state_version")
            law(
                tuple(row[name] for name in names)
                == (state["status"], state["confirmed_minutes"], state["version"]),
                "replay",
                (dict(row), state),
            )
            law("words" not in str(state), "replay", "a note was told")


def live(world: World, steps: int) -> None:
    class Lives(Contributions):
        pass

    Lives.world = world
    run_state_machine_as_test(
        Lives,
        settings=settings(
            max_examples=max(1, steps // STEPS_A_LIFE),
            stateful_step_count=STEPS_A_LIFE,
            deadline=None,
            derandomize=True,
            database=None,
            # To find is enough: each step writes to a database.
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_laws_hold_whoever_does_what(world: World) -> None:
    live(world, STEPS)
    missing = {what for what in HAPPENS if not world.seen[what]}
    assert not missing, "\n".join(map(str, sorted(world.seen.items())))


# ── Bugs ────────────────────────────────────────────────────────────────────────────────────────


def giver_confirms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(domain, "speaks_for_giver", lambda contribution, actor: False)
    monkeypatch.setattr(domain, "has_say", lambda contribution, actor: True)


def a_minute_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    post = service.post

    async def more(conn: Any, one: Any, minutes: int, *rest: Any, **named: Any) -> Any:
        return await post(conn, one, minutes + 1, *rest, **named)

    monkeypatch.setattr(service, "post", more)


def no_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unlocked(conn: db.Conn, contribution_id: UUID) -> Contribution | None:
        return await store.find_contribution(conn, contribution_id)

    monkeypatch.setattr(service, "lock", unlocked)


def ended_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(domain, "check_open", lambda contribution: None)


def saved_before_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    settle = service.settle

    async def early(conn: Any, before: Any, after: Any, actor: Any, *rest: Any) -> Any:
        await service.tell_state(conn, before, START)
        return await settle(conn, before, after, actor, *rest)

    monkeypatch.setattr(service, "settle", early)


def an_edit_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    tell = service.tell_state

    async def quiet(conn: Any, one: Contribution, now: datetime) -> None:
        if one.status == "logged" and one.version > 1:
            return
        await tell(conn, one, now)

    monkeypatch.setattr(service, "tell_state", quiet)


BUGS = [
    giver_confirms,
    a_minute_too_much,
    no_lock,
    ended_is_open,
    saved_before_refused,
    an_edit_is_not_told,
]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_planted_bug_is_caught(
    world: World, monkeypatch: pytest.MonkeyPatch, bug: Callable[[pytest.MonkeyPatch], None]
) -> None:
    bug(monkeypatch)
    # A race that was seen once need not be seen again when it is replayed.
    with pytest.raises((LawBroken, asyncpg.IntegrityConstraintViolationError, Flaky)):
        live(world, 400)
