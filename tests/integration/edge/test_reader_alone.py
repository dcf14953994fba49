"""The reader program in front of a real access, while the network goes and comes back."""

import logging
import random
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from access_world import Person, World, new, until
from reader_world import TAPS, Setup, is_ready, reader_at

from copass_edge.reader.alone import decide_alone
from copass_edge.reader.credentials import read_text
from copass_edge.reader.program import Outcome


async def test_a_cut_in_the_middle_costs_no_tap_and_lets_no_blocked_card_in(
    open_world: World, access_url: str, tmp_path: Path
) -> None:
    world = open_world
    people = [Person() for _ in range(10)]
    blocked, blocked_late, resident = Person(), Person(), Person()
    everybody = [*people, blocked, blocked_late, resident]
    await world.publish(
        world.place(2, capacity=None), *(state for one in everybody for state in one.states())
    )
    await world.publish(resident.member(2, places={world.place_id: "resident"}))
    await world.publish(blocked.card(2, status="blocked"))
    await world.knows(*everybody)
    async with reader_at(world, access_url, tmp_path) as setup:
        await until(lambda: snapshot_has(setup, everybody))
        chance = random.Random(7)
        outcomes: list[Outcome] = []
        cut_at, heal_at = TAPS // 3, 2 * TAPS // 3
        for number in range(TAPS):
            if number == cut_at:
                await until(lambda: is_ready(setup.program), 40)
                setup.cable.is_deaf = True  # the service hears this tap, and its answer is lost
            if number == cut_at + 1:
                await until(lambda: was_heard(setup, outcomes[cut_at]))
                setup.cable.is_cut, setup.cable.is_deaf = True, False
            if number == heal_at:
                await check_alone(setup, blocked, blocked_late, resident)
                setup.cable.is_cut = False
            if number == (heal_at + TAPS) // 2:
                await until(lambda: is_ready(setup.program), 40)
            if number == (cut_at + heal_at) // 2:
                await world.publish(blocked_late.card(2, status="blocked"))
            person = chance.choice([*people, blocked] if number % 10 else [blocked])
            outcome = await setup.program.tap(person.uid, chance.choice(("in", "in", "out")))
            outcomes.append(outcome)
            if person is blocked and outcome.reason != "exit":
                assert outcome.reason == "credential_blocked"
            elif person is not blocked:
                assert outcome.granted, outcome

        sources = Counter(outcome.source for outcome in outcomes)
        assert sources["live"] > 0
        assert sources["alone"] >= heal_at - cut_at
        # After the cut one tap waited for its limit; then the board knew.
        asked = [was_asked(setup, outcome) for outcome in outcomes[cut_at:heal_at]]
        assert asked == [True] + [False] * (heal_at - cut_at - 1)
        assert outcomes[cut_at].source == "alone"

        await until(lambda: all_stored(setup, len(outcomes)), 60)
        history = await world.history()
        assert Counter(str(row["tap_id"]) for row in history) == Counter(
            outcome.tap_id for outcome in outcomes
        )
        # The tap that was heard is that live one; the log only asked what became of it.
        modes = {str(row["tap_id"]): row["mode"] for row in history}
        assert modes[str(outcomes[cut_at].tap_id)] == "live"
        assert modes[str(outcomes[cut_at + 1].tap_id)] == "replay"
        by_tap = {str(row["tap_id"]): row["reason"] for row in history}
        differing = [one for one in outcomes if by_tap[str(one.tap_id)] != one.reason]
        assert differing == []
        # Blocked while the reader was alone: told first thing when it was not any more.
        await until(lambda: is_denied(setup, blocked_late))
        slowest = max(outcome.seconds for outcome in outcomes)
        report = {"taps": len(outcomes), **sources, "slowest_ms": round(slowest * 1000)}
        logging.getLogger(__name__).info("%s", report)  # --log-cli-level=INFO shows it


async def check_alone(
    setup: Setup, blocked: Person, blocked_late: Person, resident: Person
) -> None:
    """While the network is away: what the snapshot knows, and for how long it speaks."""
    held = setup.program.papers.held
    assert held is not None
    header = held.snapshot.header

    def reason(person: Person, seconds: float, *, direction: str = "in") -> str:
        reading = read_text(person.uid)
        assert reading is not None
        return decide_alone(
            held,
            setup.program.journal,
            reading,
            setup.program._name(reading),
            tap_id=new(),
            door_id=setup.world.door_id,
            direction=direction,
            now=datetime.fromtimestamp(header.issued_at + seconds, UTC),
            may_trust_visitors=True,
            is_locked_down=False,
        ).decision.reason

    hour = 3600
    assert reason(blocked, 60) == "credential_blocked"
    assert reason(blocked_late, 60) == "network_member"  # nobody could say so
    assert reason(blocked_late, 8 * hour) == "policy_stale"  # at the latest
    assert reason(resident, 60) == "resident"
    assert reason(resident, 9 * hour) == "resident"
    assert reason(resident, 72 * hour) == "policy_stale"
    assert reason(resident, 80 * hour, direction="out") == "exit"


async def snapshot_has(setup: Setup, people: list[Person]) -> bool:
    """Whether the reader has them all in its snapshot; asks for a new one meanwhile."""
    await setup.program.fetch_snapshot()
    held = setup.program.papers.held
    assert held is not None
    entries = [held.snapshot.find(one.card_key.removeprefix("card:")) for one in people]
    settled = entries[-3:]
    return None not in entries and [one.card_status for one in settled if one] == [
        "blocked",
        "active",
        "active",
    ]


def was_asked(setup: Setup, outcome: Outcome) -> bool:
    """Whether the service was asked about a tap while somebody stood there."""
    query = "SELECT attempted FROM tap WHERE tap_id = ?"
    return bool(setup.program.journal._db.execute(query, (outcome.tap_id,)).fetchone()[0])


async def was_heard(setup: Setup, outcome: Outcome) -> bool:
    """Whether the service decided a tap, whoever heard of it."""
    key = f"tap:{setup.world.reader_id}:{outcome.tap_id}"
    return bool(await setup.world.pipe.call("EXISTS", key))


async def all_stored(setup: Setup, count: int) -> bool:
    return setup.program.journal.counts().get("stored") == count


async def is_denied(setup: Setup, person: Person) -> bool:
    return (await setup.program.tap(person.uid, "in")).reason == "credential_blocked"
