"""The rules of identity, without a database."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity import domain
from identity.domain import (
    CITY_ROLES,
    FEDERATION_ROLES,
    Actor,
    Card,
    Malformed,
    Member,
    Refusal,
    narrow_audience,
    normalise_email,
    normalise_password,
    normalise_uid,
)

NOW = datetime(2026, 11, 22, tzinfo=UTC)
CITIES = ("nantes", "bourges")
PLACE = str(UUID(int=77))


def actor(city: str | None = "nantes", *roles: str, number: int = 1) -> Actor:
    return Actor(UUID(int=number), "member", city, frozenset(roles) | {"member"})


def member(city: str | None = "nantes", *roles: str, number: int = 2, **fields: object) -> Member:
    made = Member(UUID(int=number), city, "Invented", None, "active", frozenset(roles), {}, 1, NOW)
    return replace(made, **fields)  # type: ignore[arg-type]  # any field of a test's choice


def card(city: str = "nantes", holder: int = 2, status: str = "active") -> Card:
    return Card(
        UUID(int=9), UUID(int=holder), city, "uid", "0" * 64, "BEEF", "", status, None, None, 1, NOW
    )


# UIDs

uid_bytes = st.sampled_from([4, 7, 10]).flatmap(
    lambda size: st.binary(min_size=size, max_size=size)
)
good_uids = uid_bytes.filter(
    lambda raw: set(raw) not in ({0}, {255}) and not (len(raw) == 4 and raw[0] in (0x08, 0x88))
)


@given(good_uids, st.sampled_from(["", ":", "-", " "]), st.booleans())
def test_every_way_of_writing_a_uid_is_the_same_uid(
    raw: bytes, separator: str, upper: bool
) -> None:
    text = separator.join(f"{byte:02x}" for byte in raw)
    assert normalise_uid(text.upper() if upper else text) == raw.hex().upper()


@given(good_uids)
def test_normalising_twice_changes_nothing(raw: bytes) -> None:
    once = normalise_uid(raw.hex())
    assert normalise_uid(once) == once


@given(st.text(max_size=40))
def test_any_text_is_a_uid_of_a_right_length_or_malformed_without_repeating_it(text: str) -> None:
    refused = ""
    try:
        uid = normalise_uid(text)
    except Malformed as error:
        refused = str(error)
    else:
        assert len(uid) in (8, 14, 20)
        assert set(uid) <= set("0123456789ABCDEF")
    assert len(text) < 6 or text not in refused


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "04A3B2C",  # odd
        "04A3B2C1D",
        "04A3B2C1D5",  # five bytes
        "04A3B2C1D5E6F708",  # eight bytes
        "4:A3:B2:C1",  # a group of one digit
        "04A3:B2C1",  # groups of two bytes
        "04:A3-B2:C1",
        "04::A3:B2:C1",
        ":04:A3:B2:C1",
        "04:A3:B2:C1:",
        "0x04A3B2C1",
        "04A3B2G1",
        "04A3B2C1\n",
        "٠٤A3B2C1",  # Arabic digits
        "０４A3B2C1",  # full width
        "0_4A3B2C1",
        "+4A3B2C1",
        "00000000",
        "FFFFFFFFFFFFFF",
        "08A3B2C1",  # random at each tap
        "88A3B2C1",  # half a UID
    ],
)
def test_an_ambiguous_uid_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        normalise_uid(text)


def test_a_longer_uid_may_begin_with_08() -> None:
    assert normalise_uid("08a3b2c1d5e6f7") == "08A3B2C1D5E6F7"


# Logins


def test_an_address_is_lower_cased() -> None:
    assert (
        normalise_email("Claire.Invented+a@Exemple.Invalid") == "claire.invented+a@exemple.invalid"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "claire",
        "@exemple.invalid",
        "claire@",
        "claire@exemple",
        "claire@@exemple.invalid",
        "claire@exemple..invalid",
        "claire@-exemple.invalid",
        ".claire@exemple.invalid",
        "cl aire@exemple.invalid",
        "claire@exemple.invalid\n",
        "claire\x00@exemple.invalid",
        "clаire@exemple.invalid",  # a Cyrillic а is the point
        "ｃlaire@exemple.invalid",  # full width
        "claire@exemple．invalid",  # a full-width dot is the point
        "ﬁona@exemple.invalid",  # a ligature
        "\u212a@exemple.invalid",  # the Kelvin sign, whose lower case is k
        "claire@exämple.invalid",
        "cla\u200dire@exemple.invalid",  # zero width joiner
        "\u202eclaire@exemple.invalid",
        "a" * 65 + "@exemple.invalid",
        "a@" + "b" * 250 + ".invalid",
    ],
)
def test_a_malformed_or_look_alike_address_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        normalise_email(text)


@given(st.text(max_size=30), st.text(max_size=30))
def test_an_accepted_address_is_plain_lower_case_ascii(local: str, host: str) -> None:
    try:
        email = normalise_email(f"{local}@{host}.fr")
    except Malformed:
        return
    assert email.isascii()
    assert email == email.lower()
    assert normalise_email(email) == email


def test_a_password_has_a_length_and_is_folded() -> None:
    assert normalise_password("ﬁancailles") == "fiancailles"
    for text in ("short", "x" * 201):
        with pytest.raises(Malformed):
            normalise_password(text)


def test_an_audience_can_only_become_narrower() -> None:
    assert narrow_audience((), ("identity", "access")) == ("identity", "access")
    assert narrow_audience(("access",), ("identity", "access")) == ("access",)
    assert narrow_audience(("timebank",), ("identity", "access")) is None


# Roles

role_sets = st.frozensets(st.sampled_from(sorted(CITY_ROLES | FEDERATION_ROLES)))
cities = st.sampled_from([*CITIES, None])
actors = st.builds(
    lambda number, city, roles: actor(city, *roles, number=number),
    st.integers(1, 3),
    cities,
    role_sets,
)
members = st.builds(
    lambda number, city, roles, status: member(city, *roles, number=number, status=status),
    st.integers(1, 3),
    cities,
    role_sets,
    st.sampled_from(["active", "suspended", "erased"]),
)
place_maps = st.dictionaries(
    st.sampled_from([PLACE, str(UUID(int=78))]), st.sampled_from(["resident", "staff"])
)
place_cities = st.dictionaries(st.sampled_from([PLACE, str(UUID(int=78))]), st.sampled_from(CITIES))


@given(actors, members, role_sets, place_maps, place_cities)
def test_nobody_but_a_federation_admin_touches_federation_roles(
    who: Actor,
    whom: Member,
    roles: frozenset[str],
    places: dict[str, str],
    known: dict[str, str],
) -> None:
    allowed = domain.refuse_roles(who, whom, roles, places, known) is None
    if allowed and not who.is_federation_admin:
        assert not (roles | whom.roles) & FEDERATION_ROLES
        assert "steward" in who.roles
        assert who.city_id == whom.city_id is not None
        assert all(known[place] == who.city_id for place in places)


@given(actors, members, role_sets, place_maps, place_cities)
def test_the_refusal_tells_a_stranger_nothing(
    who: Actor,
    whom: Member,
    roles: frozenset[str],
    places: dict[str, str],
    known: dict[str, str],
) -> None:
    refusal = domain.refuse_roles(who, whom, roles, places, known)
    if not domain.sees_member(who, whom):
        assert refusal is Refusal.NOT_FOUND


@given(actors, members, st.frozensets(st.text(max_size=8), min_size=1))
def test_a_role_that_does_not_exist_is_never_given(
    who: Actor, whom: Member, roles: frozenset[str]
) -> None:
    if not roles <= CITY_ROLES | FEDERATION_ROLES:
        assert domain.refuse_roles(who, whom, roles, {}, {}) is not None


@given(actors, members)
def test_only_a_federation_admin_suspends_who_serves_the_federation(
    who: Actor, whom: Member
) -> None:
    if domain.refuse_status_change(who, whom) is None and whom.roles & FEDERATION_ROLES:
        assert who.is_federation_admin


@given(actors, st.sampled_from(CITIES), st.integers(1, 3))
def test_a_card_is_blocked_by_its_holder_its_steward_or_the_federation(
    who: Actor, city: str, holder: int
) -> None:
    allowed = domain.refuse_block(who, card(city, holder)) is None
    steward = "steward" in who.roles and who.city_id == city
    assert allowed == (who.id == UUID(int=holder) or steward or who.is_federation_admin)


@given(actors, st.sampled_from(CITIES), st.integers(1, 3))
def test_the_holder_alone_cannot_unblock(who: Actor, city: str, holder: int) -> None:
    allowed = domain.refuse_unblock(who, card(city, holder)) is None
    steward = "steward" in who.roles and who.city_id == city
    assert allowed == (steward or who.is_federation_admin)


def test_a_replaced_card_stays_replaced() -> None:
    old = card(status="replaced")
    steward = actor("nantes", "steward")
    for decide in (domain.refuse_block, domain.refuse_unblock, domain.refuse_replace):
        assert decide(steward, old) is Refusal.CARD_REPLACED


def test_a_steward_gives_no_key_to_another_citys_house() -> None:
    steward, whom = actor("nantes", "steward"), member()
    staff = {PLACE: "staff"}
    no_roles: frozenset[str] = frozenset()
    assert domain.refuse_roles(steward, whom, no_roles, staff, {PLACE: "nantes"}) is None
    for known in ({}, {PLACE: "bourges"}):
        refusal = domain.refuse_roles(steward, whom, no_roles, staff, known)
        assert refusal is Refusal.UNKNOWN_PLACE


def test_a_place_that_the_federation_gave_does_not_stop_a_steward() -> None:
    whom = member(places={PLACE: "staff"})
    steward = actor("nantes", "steward")
    roles = frozenset({"mediator"})
    assert domain.refuse_roles(steward, whom, roles, {PLACE: "staff"}, {}) is None
    raised = domain.refuse_roles(steward, whom, roles, {PLACE: "resident"}, {})
    assert raised is Refusal.UNKNOWN_PLACE


def test_somebody_without_a_city_has_no_city_role_and_no_card() -> None:
    admin, whom = actor(None, "federation_admin"), member(None)
    refusal = domain.refuse_roles(admin, whom, frozenset({"steward"}), {}, {})
    assert refusal is Refusal.CITY_REQUIRED
    assert domain.refuse_card_issue(admin, whom) is Refusal.MEMBER_WITHOUT_CITY


def test_two_without_a_city_are_not_in_the_same_city() -> None:
    steward_of_nowhere = actor(None, "steward")
    assert domain.refuse_status_change(steward_of_nowhere, member(None)) is Refusal.NOT_FOUND


def test_a_machine_never_administers_the_federation() -> None:
    refusal = domain.refuse_client_roles(None, frozenset({"federation_admin"}))
    assert refusal is Refusal.UNKNOWN_ROLE
    assert domain.refuse_client_roles(None, frozenset({"auditor"})) is None
    assert domain.refuse_client_roles(None, frozenset({"operator"})) is Refusal.CITY_REQUIRED
