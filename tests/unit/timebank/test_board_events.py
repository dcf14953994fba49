"""What the board publishes is what the contracts say, and tells nobody's words."""

from dataclasses import fields, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
from jsonschema import Draft202012Validator

from timebank import events
from timebank.board.exchanges.domain import Exchange, Party
from timebank.board.listings.domain import Listing

CONTRACTS = Path(__file__).parents[3] / "contracts" / "events"
NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
TODAY = date(2026, 11, 22)
SECRET = "12 rue des Lilas"
ONE, TWO = UUID(int=1), UUID(int=2)

LISTING = Listing(
    id=ONE, city_id="nantes", owner_kind="member", owner_id=TWO, kind="offer", what="surplus",
    title=SECRET, text=SECRET, category="food", skills=("pain",), place_id=ONE, latitude=47.218,
    longitude=-1.554, schedule_text=SECRET, schedule_slots=(), price_minutes=5,
    deposit_minutes=0, quantity=3, available_until=TODAY, visibility="federation",
    listed_by=SECRET, created_at=NOW, taken=1,
)  # fmt: skip
EXCHANGE = Exchange(
    id=ONE, listing_id=TWO, city_id="nantes", kind="offer", what="lend", category="tools",
    requester_id=ONE, requester_city_id="nantes", giver=Party("organisation", TWO),
    receiver=Party("member", ONE), minutes=5, deposit_minutes=60, quantity=None, from_on=TODAY,
    until_on=TODAY, message=SECRET, created_at=NOW, status="settled", price_hold_id=ONE,
    deposit_hold_id=TWO, claimed_minutes=30, settled_minutes=20, claim_note=SECRET,
    ruling_note=SECRET, transfer_id=ONE, ended_at=NOW, version=6,
)  # fmt: skip


def check(type_: str, data: dict[str, Any]) -> None:
    schema = orjson.loads((CONTRACTS / f"{type_}.json").read_bytes())
    Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(data)
    assert set(data) == set(schema["properties"])
    told = orjson.dumps(data).decode()
    for secret in ("Lilas", "47.2", "1.55"):
        assert secret not in told


def emptied(value: Any, *names: str) -> Any:
    """The same with nothing where there may be nothing."""
    return replace(value, **dict.fromkeys(names))


def test_a_listing_is_told_as_agreed() -> None:
    check(events.LISTING_CHANGED, events.listing_changed(LISTING))
    assert events.listing_changed(LISTING)["quantity_left"] == 2
    bare = emptied(LISTING, "place_id", "quantity", "available_until", "title", "text")
    check(events.LISTING_CHANGED, events.listing_changed(bare))


def test_an_exchange_is_told_as_agreed() -> None:
    check(events.EXCHANGE_CHANGED, events.exchange_changed(EXCHANGE))
    names = {field.name for field in fields(EXCHANGE) if field.default is None}
    bare = emptied(EXCHANGE, "from_on", "until_on", "message", *names)
    check(events.EXCHANGE_CHANGED, events.exchange_changed(bare))
