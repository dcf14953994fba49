"""What is published is what the contracts say."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest
from jsonschema import Draft202012Validator

from timebank import events
from timebank.domain import Account, Posting, Transfer
from timebank.holds.domain import Hold

CONTRACTS = Path(__file__).parents[3] / "contracts" / "events"


def check(type_: str, data: dict[str, Any]) -> None:
    schema = orjson.loads((CONTRACTS / f"{type_}.json").read_bytes())
    Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(data)
    assert set(data) == set(schema["properties"])


@pytest.mark.parametrize("reverses", [None, UUID(int=9)])
def test_a_posted_transfer_is_told_as_agreed(reverses: UUID | None) -> None:
    transfer = Transfer(
        id=UUID(int=1),
        city_id="nantes",
        kind="reversal" if reverses else "transfer",
        reverses=reverses,
        requested_by="somebody",
        posted_at=datetime(2026, 11, 22, tzinfo=UTC),
        memo="for nobody else",
        postings=(Posting(UUID(int=2), -5, 1, -5), Posting(UUID(int=3), 5, 1, 5)),
    )
    data = events.transfer_posted(transfer)
    check(events.TRANSFER_POSTED, data)
    assert "nobody" not in str(data)
    assert "somebody" not in str(data)


def test_a_standing_is_told_as_agreed() -> None:
    check(
        events.STANDING_CHANGED,
        events.standing_changed(
            member_id=str(UUID(int=1)), city_id="nantes", standing="good", version=1
        ),
    )


def test_a_book_that_differs_is_told_as_agreed() -> None:
    check(
        events.BOOK_DIFFERS,
        events.book_differs(
            city_id="nantes",
            checked_at=datetime(2026, 11, 22, tzinfo=UTC),
            differences=1,
            first=["the balances sum to 1, not to 0"],
        ),
    )


@pytest.mark.parametrize("closed_at", [None, datetime(2026, 11, 23, tzinfo=UTC)])
def test_an_alarm_about_two_cities_is_told_as_agreed(closed_at: datetime | None) -> None:
    check(
        events.PAIR_ALARM_CHANGED,
        events.pair_alarm_changed(
            alarm_id=UUID(int=1),
            version=1,
            city_id="nantes",
            peer_city_id="bourges",
            kind="unknown_here",
            ids=[UUID(int=2)],
            count=1,
            minutes=-30,
            raised_at=datetime(2026, 11, 22, tzinfo=UTC),
            closed_at=closed_at,
        ),
    )


@pytest.mark.parametrize(("kind", "owner_id"), [("member", UUID(int=3)), ("commons", None)])
def test_an_account_is_told_as_agreed(kind: Any, owner_id: UUID | None) -> None:
    account = Account(UUID(int=2), "nantes", kind, owner_id, True, None, 77, 1)
    data = events.account_changed(account, 1)
    check(events.ACCOUNT_CHANGED, data)
    assert "77" not in str(data)


@pytest.mark.parametrize("ended", [False, True])
def test_a_hold_is_told_as_agreed(ended: bool) -> None:
    now = datetime(2026, 11, 22, tzinfo=UTC)
    hold = Hold(
        id=UUID(int=1),
        city_id="nantes",
        from_account=UUID(int=2),
        to_account=UUID(int=3),
        minutes=90,
        memo="for nobody else",
        requested_by="somebody",
        created_at=now,
        expires_at=now + timedelta(days=1),
    )
    if ended:
        hold = replace(
            hold,
            status="posted",
            resolved_at=now,
            posted_minutes=50,
            transfer_id=UUID(int=4),
        )
    data = events.hold_changed(hold)
    check(events.HOLD_CHANGED, data)
    assert data["version"] == 1 + ended
    assert "nobody" not in str(data)
    assert "somebody" not in str(data)


def test_every_type_has_its_schema_and_every_topic_its_types() -> None:
    types = {
        value
        for name, value in vars(events).items()
        if name.isupper() and isinstance(value, str) and value.endswith(".v1")
    }
    schemas = {
        type_: orjson.loads((CONTRACTS / f"{type_}.json").read_bytes()) for type_ in sorted(types)
    }
    assert {schema["x-topic"] for schema in schemas.values()} == {
        topic.name for topic in events.PUBLISHED
    }
    for type_, schema in schemas.items():
        Draft202012Validator.check_schema(schema)
        assert schema["title"] == type_
