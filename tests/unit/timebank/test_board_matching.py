"""Which offer answers which need: docs/decisions/board-matching.md."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from timebank.board import matching
from timebank.board.listings.domain import Listing, Slot
from timebank.board.matching import Match, match, rank

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)


def listing(number: int, kind: Any, **fields: Any) -> Listing:
    base = Listing(
        id=UUID(int=number), city_id="nantes", owner_kind="member", owner_id=UUID(int=number),
        kind=kind, what="service", title="x", text=None, category="other", skills=(),
        place_id=None, latitude=None, longitude=None, schedule_text=None, schedule_slots=(),
        price_minutes=0, deposit_minutes=0, quantity=None, available_until=None,
        visibility="city", listed_by="x", created_at=NOW,
    )  # fmt: skip
    return replace(base, **fields)


def reasons(
    ours: dict[str, Any],
    theirs: dict[str, Any],
    our_stems: frozenset[str] = frozenset(),
    their_stems: frozenset[str] = frozenset(),
) -> dict[str, tuple[int, str]]:
    found = match(listing(1, "need", **ours), our_stems, listing(2, "offer", **theirs), their_stems)
    return {reason.code: (reason.points, reason.value) for reason in found.reasons} if found else {}


def test_a_skill_in_common_is_the_strongest_reason() -> None:
    piano = {"skills": ("piano", "solfege")}
    assert reasons(piano, {"skills": ("piano",)}) == {
        "skill": (30, "piano"),
        "same_city": (5, "nantes"),
        "price": (5, "0"),
    }
    assert reasons(piano, piano)["skill"] == (60, "piano, solfege")


def test_words_and_a_category_count_together() -> None:
    repair = {"category": "repair"}
    assert reasons(repair, repair, frozenset({"velo"}), frozenset({"velo", "roug"})) == {
        "category": (15, "repair"),
        "words": (10, "velo"),
        "same_city": (5, "nantes"),
        "price": (5, "0"),
    }


def test_nearness_needs_something_in_common() -> None:
    here = {"latitude": 47.218, "longitude": -1.554}
    assert reasons(here, here) == {}
    assert reasons({"category": "food", **here}, {"category": "food", **here})["near"] == (15, "0")
    far = {"latitude": 47.248, "longitude": -1.554}
    near = reasons({"category": "food", **here}, {"category": "food", **far})
    assert near["near"] == (5, "3336")
    assert "same_city" not in near


def test_hours_that_meet_count() -> None:
    ours = {"category": "repair", "schedule_slots": (Slot(2, 600, 720), Slot(4, 0, 60))}
    theirs = {"category": "repair", "schedule_slots": (Slot(2, 660, 900), Slot(3, 0, 60))}
    assert reasons(ours, theirs)["schedule"] == (10, "60")


def test_an_offer_above_what_a_need_gives_is_no_reason_but_no_obstacle() -> None:
    ours, theirs = {"skills": ("piano",), "price_minutes": 30}, {"skills": ("piano",)}
    assert "price" in reasons(ours, {**theirs, "price_minutes": 30})
    assert set(reasons(ours, {**theirs, "price_minutes": 31})) == {"skill", "same_city"}


def test_what_cannot_be_exchanged_is_no_match() -> None:
    ours = listing(1, "need", skills=("piano",), category="music")
    theirs = listing(2, "offer", skills=("piano",), category="music")
    stems: frozenset[str] = frozenset()
    assert match(ours, stems, theirs, stems) is not None
    for other in (
        replace(theirs, kind="need"),
        replace(theirs, what="lend"),
        replace(theirs, owner_id=ours.owner_id),
        replace(theirs, city_id="bourges", price_minutes=5),
        replace(theirs, skills=(), category="food"),
    ):
        assert match(ours, stems, other, stems) is None
    assert match(ours, stems, replace(theirs, city_id="bourges"), stems) is not None


def test_a_category_alone_is_too_little_from_another_city() -> None:
    ours, theirs = {"category": "music"}, {"category": "music", "city_id": "bourges"}
    assert "category" in reasons(ours, theirs)  # 15 and the price: just enough
    assert reasons({**ours}, {**theirs, "price_minutes": 0, "category": "other"}) == {}
    above = {"category": "music", "price_minutes": 10}
    far = {"latitude": 47.0, "longitude": 0.0}
    near = {"latitude": 48.0, "longitude": 0.0}
    assert reasons({**ours, **far}, {**above, **near}) == {}


SKILLS = st.sets(st.sampled_from(["piano", "velo", "pain"])).map(tuple)
LISTINGS = st.builds(
    lambda number, kind, skills, category, price, city, slots: listing(
        number, kind, skills=skills, category=category, price_minutes=price, city_id=city,
        schedule_slots=slots,
    ),
    st.integers(1, 9),
    st.sampled_from(["offer", "need"]),
    SKILLS,
    st.sampled_from(["repair", "food", "other"]),
    st.sampled_from([0, 30]),
    st.sampled_from(["nantes", "bourges"]),
    st.sampled_from([(), (Slot(1, 0, 60),)]),
)  # fmt: skip
STEMS = st.frozensets(st.sampled_from(["velo", "pain", "roug"]))


@given(LISTINGS, STEMS, LISTINGS, STEMS)
def test_a_match_is_one_from_both_sides_for_the_same_reasons(
    ours: Listing, our_stems: frozenset[str], theirs: Listing, their_stems: frozenset[str]
) -> None:
    there = match(ours, our_stems, theirs, their_stems)
    back = match(theirs, their_stems, ours, our_stems)
    assert (there is None) == (back is None)
    if there and back:
        assert set(there.reasons) == set(back.reasons)
        assert there.points == sum(reason.points for reason in there.reasons)
        assert there.points >= matching.POINTS_MIN


@given(
    st.lists(
        st.tuples(st.integers(1, 50), st.integers(20, 40)), max_size=60, unique_by=lambda p: p[0]
    )
)
def test_the_most_points_come_first_then_the_newest(pairs: list[tuple[int, int]]) -> None:
    found = rank(
        Match(listing(number, "offer"), (matching.Reason("skill", points, "x"),))
        for number, points in pairs
    )
    assert len(found) == min(len(pairs), matching.MATCHES_MAX)
    order = [(-one.points, -one.listing.id.int) for one in found]
    assert order == sorted(order)
    best = sorted((-points, -number) for number, points in pairs)[: len(found)]
    assert order == best
