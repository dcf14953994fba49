"""The models say what the code does: their steps are read from their text, and the code's compared.

Needs no model checker.
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args
from uuid import UUID, uuid4

import pytest
from aiokafka.structs import RecordMetadata, TopicPartition

sys.path.insert(0, str(Path(__file__).parent))

import promela

from common import outbox
from common.consumer import Consumer
from timebank.clearing import domain, messages, service
from timebank.clearing.domain import Agreement, Decision, Outgoing, OutgoingState, Pair, Prepare
from timebank.clearing.store import Arrival
from timebank.domain import Account, AccountKind, Leg, Rejected

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
LIMIT = 2
CLEARING = promela.source("clearing")
RELAY = promela.source("relay")
# The model's kinds of message, and those of the wire: a query is the same prepare again.
ON_THE_WIRE = {"prepare": {"prepare", "query"}, "yes": {"accepted"}, "no": {"rejected"}}
# What the model leaves out (docs/models.md).
OUTSIDE = {
    "agreement.proposed",
    "agreement.accepted",
    "agreement.suspended",
    "agreement.resumed",
    "agreement.ended",
    "reversal.agreed",
    "netting.proposed",
    "netting.agreed",
    "netting.refused",
    "netting.decided",
    "netting.passed",
    "pair.asked",
    "pair.said",
}


def account(kind: AccountKind, balance: int = 0) -> Account:
    return Account(uuid4(), "a", kind, None, True, None, balance, 0)


def pair(in_transit: int = 0, clearing: int = 0) -> Pair:
    return Pair(
        account("in_transit", in_transit), account("clearing", clearing), account("commons")
    )


def changes(legs: Sequence[Leg], names: dict[UUID, str]) -> dict[str, int]:
    """What legs do to the accounts, under the names that the model gives them."""
    return {names[leg.account_id]: leg.minutes for leg in legs}


def difference(
    before: dict[str, Any], after: dict[str, Any], names: Sequence[str]
) -> dict[str, int]:
    return {name: after[name] - before[name] for name in names if after[name] != before[name]}


PAYEE = account("member")
PREPARE = Prepare(uuid4(), "a", "b", 1, uuid4(), NOW + timedelta(hours=1))
AGREEMENT = Agreement("a", "active", limit_out_minutes=LIMIT, limit_in_minutes=LIMIT)


def kinds_of(body: Any) -> set[str]:
    return set(get_args(body.model_fields["kind"].annotation))


def test_the_model_knows_every_message_of_a_transfer() -> None:
    assert set(ON_THE_WIRE) == set(promela.message_kinds())
    modelled = set().union(*ON_THE_WIRE.values())
    assert modelled == kinds_of(messages.PrepareBody) | kinds_of(messages.AnswerBody)
    union = get_args(messages.Body)[0]
    everything = set().union(*(kinds_of(body) for body in get_args(union)))
    assert everything - modelled == OUTSIDE


def test_a_departure_does_what_the_model_does() -> None:
    line = next(
        one
        for one in promela.block(CLEARING, "proctype source").splitlines()
        if "idle" not in one and "payer--" in one
    )
    effects = re.search(r"\{ (.+) \}", line)
    assert effects is not None
    step = promela.Step("true", tuple(effects[1].replace("[t]", "").split("; ")))
    before = {"payer": 0, "in_transit": 0, "clearing_b": 0, "out": "idle", "prepare": False}
    after = step.taken(before)

    accounts, payer = pair(), account("member")
    done = domain.depart(PREPARE, payer, accounts, AGREEMENT, NOW)
    assert not isinstance(done, Rejected)
    outgoing, legs = done
    names = {
        payer.id: "payer",
        accounts.in_transit.id: "in_transit",
        accounts.clearing.id: "clearing_b",
    }
    assert changes(legs, names) == difference(before, after, list(names.values()))
    assert (outgoing.state, after["prepare"]) == (after["out"], True)


@pytest.mark.parametrize(("kind", "state"), list(product(("yes", "no"), get_args(OutgoingState))))
def test_an_answer_does_to_the_source_what_the_model_says(kind: str, state: OutgoingState) -> None:
    before = {
        "payer": -1,
        "in_transit": 1,
        "clearing_b": 0,
        "out": state,
        "prepare": True,
        "yes": kind == "yes",
        "no": kind == "no",
    }
    led_to = promela.may_do(promela.block(CLEARING, "proctype source"), before)

    payer, accounts = account("member", -1), pair(in_transit=1)
    outgoing = Outgoing(PREPARE, payer.id, 0, state, NOW)
    reason: domain.RefusalReason | None = None if kind == "yes" else "limit_reached"
    meaning = domain.conclude(outgoing, Decision(PREPARE.transfer_id, reason, NOW))
    if meaning in ("nothing", "contradiction"):
        assert led_to == []
        return
    settles = meaning == "settle"
    write = domain.settlement_legs if settles else domain.return_legs
    names = {
        payer.id: "payer",
        accounts.in_transit.id: "in_transit",
        accounts.clearing.id: "clearing_b",
    }
    assert len(led_to) == 1
    assert changes(write(outgoing, accounts), names) == difference(
        before, led_to[0], list(names.values())
    )
    assert led_to[0]["out"] == ("settled" if settles else "returned")


@pytest.mark.parametrize(("late", "owed"), list(product((False, True), range(LIMIT + 1))))
def test_the_destination_decides_as_the_model_does(late: bool, owed: int) -> None:
    before = {
        "late": late,
        "clearing_a": -owed,
        "payee": owed,
        "decided": "undecided",
        "late_yes": False,
    }
    led_to = {
        after["decided"]: after
        for after in promela.may_do(promela.block(CLEARING, "inline decide"), before)
    }

    accounts = pair(clearing=-owed)
    now = PREPARE.deadline if late else NOW
    decision, legs = domain.decide(PREPARE, PAYEE, accounts, AGREEMENT, now)
    assert decision.accepted == ("accepted" in led_to)
    said = "accepted" if decision.accepted else "refused"
    names = {PAYEE.id: "payee", accounts.clearing.id: "clearing_a"}
    assert changes(legs, names) == difference(before, led_to[said], list(names.values()))


@pytest.mark.parametrize(
    ("payee", "agreement"),
    [
        (None, AGREEMENT),
        (replace(PAYEE, open=False), AGREEMENT),
        (PAYEE, replace(AGREEMENT, state="suspended")),
        (PAYEE, None),
    ],
)
def test_a_refusal_for_another_reason_is_one_of_the_models(
    payee: Account | None, agreement: Agreement | None
) -> None:
    before = {"late": False, "clearing_a": 0, "payee": 0, "decided": "undecided", "late_yes": False}
    led_to = promela.may_do(promela.block(CLEARING, "inline decide"), before)
    decision, legs = domain.decide(PREPARE, payee, pair(), agreement, NOW)
    assert (decision.accepted, legs) == (False, ())
    assert {**before, "decided": "refused"} in led_to


@pytest.mark.parametrize(
    ("kind", "decided"),
    list(product(sorted(ON_THE_WIRE["prepare"]), ("undecided", "accepted", "refused"))),
)
async def test_the_destination_decides_once_and_says_it_again(
    kind: str, decided: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`arrive`, with a store in memory, for a prepare and for a query, in every state."""
    steps = list(promela.steps(promela.block(CLEARING, "proctype destination")))
    decides = [one for one in steps if "decide(t)" in one.effects and one.may({"decided": decided})]
    told = {"accepted": "yes", "refused": "no"}
    made: list[str] = []
    said: list[str] = []

    def arrival(word: str) -> Arrival:
        reason: domain.RefusalReason | None = None if word == "accepted" else "limit_reached"
        return Arrival(PREPARE, Decision(PREPARE.transfer_id, reason, NOW), 0, None)

    async def find_arrival(*_: Any) -> Arrival | None:
        return None if decided == "undecided" else arrival(decided)

    async def decide(*_: Any) -> Arrival:
        made.append("accepted")
        return arrival("accepted")

    async def add_arrival(*_: Any) -> None:
        made.append("kept")

    async def say(_conn: Any, _vault: Any, _from: str, _to: str, body: Any, _now: datetime) -> None:
        said.append(body.kind)

    monkeypatch.setattr(service.store, "find_arrival", find_arrival)
    monkeypatch.setattr(service.store, "add_arrival", add_arrival)
    monkeypatch.setattr(service, "decide", decide)
    monkeypatch.setattr(service, "say", say)
    body = messages.ask(PREPARE, again=kind == "query")
    assert body.kind == kind
    envelope = SimpleNamespace(body=body, from_city="a", to_city="b")
    heard: Any = envelope
    nothing: Any = None
    await service.arrive(nothing, nothing, nothing, messages.to_prepare(heard), NOW)
    assert made == (["accepted", "kept"] if decides else [])
    after = "accepted" if decides else decided
    answers = [
        one
        for one in steps
        if "decide(t)" not in one.effects and one.guard != "else" and one.may({"decided": after})
    ]
    assert [f"{told[after]} = true"] == [one.effects[0] for one in answers]
    assert set(said) == ON_THE_WIRE[told[after]]


# ── The relay and the consumer ──────────────────────────────────────────────────────────────────


def test_what_the_model_of_the_relay_keeps_is_what_the_database_keeps() -> None:
    text = (promela.MODELS / "relay.pml").read_text()
    migrations = Path(outbox.__file__).parent / "migrations"
    sql = "\n".join(file.read_text() for file in sorted(migrations.glob("*.sql")))
    named = re.findall(r"/\* (\w+)\.(\w+)", text)
    assert set(named) == {("outbox_watermark", "next_offset"), ("outbox_log", "log_epoch")}
    for table, column in [*named, ("outbox", "published_at"), ("inbox", "event_id")]:
        columns = re.search(rf"CREATE TABLE {table} \((.*?)\n\);", sql, re.DOTALL)
        assert columns is not None, table
        assert re.search(rf"^\s+{column} ", columns[1], re.MULTILINE), column
    for name in ("outbox", "consumer", "inbox"):
        assert f"common/{name}.py" in text


def model_sends(watermark: int, offsets: Sequence[int]) -> tuple[bool, int]:
    """Whether the model's relay starts again after a batch, and else its next watermark."""
    relay = promela.block(RELAY, "proctype relay")
    behind_if = re.findall(r":: (.+?) -> behind = true", relay)
    assert len(behind_if) == 2
    reached = re.search(r"watermark = \((.+?) -> (.+?) : (.+?)\)", relay)
    assert reached is not None
    first = last = 255
    behind = False
    for offset in offsets:
        state = {"length": offset, "watermark": watermark, "last": last}
        behind = behind or any(promela.value(guard, state) for guard in behind_if)
        first, last = min(first, offset), offset
    state = {"first": first, "watermark": watermark}
    condition, then, otherwise = reached.groups()
    return behind, promela.value(then if promela.value(condition, state) else otherwise, state)


@pytest.mark.parametrize("watermark", range(4))
def test_the_relay_notices_a_lost_log_when_the_model_does(watermark: int) -> None:
    place = TopicPartition("things", 0)
    known = {("things", 0): watermark} if watermark else {}
    for offsets in product(range(5), repeat=3):
        sent = [RecordMetadata("things", 0, place, one, None, 0, 0) for one in offsets]
        behind, reached = model_sends(watermark, offsets)
        assert bool(outbox.fallen_back(sent, known, prefix="")) == behind, offsets
        if not behind:
            # As save_watermarks keeps it: the greater of the two.
            told = outbox.next_offsets(sent, prefix="")[("things", 0)]
            assert max(told, watermark) == reached, offsets


class Handled(Consumer):
    """A consumer of which only the order of what it does is looked at."""

    def __init__(self) -> None:
        settings: Any = SimpleNamespace(kafka_topic_prefix="")
        pool: Any = None
        super().__init__(settings, pool, "group", {"things": self._never})
        self.did: list[str] = []

    async def _never(self, conn: Any, event: Any) -> None:
        raise AssertionError

    async def _handle(self, record: Any) -> None:
        self.did.append("handle")

    # What it asks of the broker.
    async def seek_to_beginning(self, *_: Any) -> None:
        self.did.append("seek")

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        self.did.append(f"commit {offsets[TopicPartition('things', 0)]}")

    def highwater(self, _: Any) -> int:
        return 8


@pytest.mark.parametrize(("known", "met"), list(product((None, 0, 1, 2), (0, 1, 2))))
async def test_the_consumer_reads_from_the_start_when_the_model_does(
    known: int | None, met: int
) -> None:
    """`known` None: a new life, for which the model's epoch is 0. The offset comes last."""
    consumer_block = promela.block(RELAY, "proctype consumer")
    guard = re.search(r":: (log_epochs\[position\] .+?) -> .*position = 0", consumer_block)
    assert guard is not None
    state = {"log_epochs": met, "epoch": known or 0}
    again = promela.value(guard[1].replace("[position]", ""), state)
    at = [
        consumer_block.index(words)
        for words in ("apply(e)", "inbox[e] = true", "group_offset = position")
    ]
    assert at == sorted(at)

    consumer = Handled()
    place = TopicPartition("things", 0)
    if known is not None:
        consumer._epochs[place, "/a"] = known
    headers = [("ce_logepoch", str(met).encode()), ("ce_source", b"/a")]
    record: Any = SimpleNamespace(offset=6, headers=headers)
    broker: Any = consumer
    await consumer._handle_all(broker, {place: [record]})
    assert consumer.did == (["seek"] if again else ["handle", "commit 7"])
    assert consumer._epochs.get((place, "/a"), 0) == max(met, known or 0)


async def test_each_sender_counts_for_itself_how_often_its_log_was_lost() -> None:
    """Two time banks write to one topic, and one may have noticed a loss more often."""
    consumer, place = Handled(), TopicPartition("things", 0)
    consumer._epochs[place, "/loud"] = 2
    headers = [("ce_logepoch", b"1"), ("ce_source", b"/quiet")]
    record: Any = SimpleNamespace(offset=6, headers=headers)
    broker: Any = consumer
    await consumer._handle_all(broker, {place: [record]})
    assert consumer.did == ["seek"]
