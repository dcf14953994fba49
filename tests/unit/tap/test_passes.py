"""What phones and guests show: the one way of writing it, its time, its signature."""

import base64
import os
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from phone import Phone

from copass_tap.decision import Card, Door, Facts, Member, Tap, decide
from copass_tap.passes import (
    WINDOW_SECONDS,
    PassCode,
    read_guest,
    read_pass,
    window_at,
    write_guest,
    write_pass,
)
from copass_tap.signatures import is_own, is_signed

# How many random mutations are tried; a hundred thousand take half a minute.
MUTATIONS = int(os.environ.get("MUTATIONS", "1000"))
NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
AT = int(NOW.timestamp())
CARD_ID = "019365a0-0000-7000-8000-00000000c0de"
PHONE = Phone(CARD_ID)
OTHER_PHONE = Phone(CARD_ID)
TEXT = PHONE.show(window_at(AT))


def test_what_a_phone_shows_is_read_and_believed_with_its_key_alone() -> None:
    code = read_pass(TEXT)
    assert code is not None
    assert (code.card_id, code.window) == (CARD_ID, window_at(AT))
    assert is_signed(code, PHONE.public_key)
    assert not is_signed(code, OTHER_PHONE.public_key)
    assert write_pass(code) == TEXT
    assert read_pass(TEXT.lower()) == code  # a scanner that types with the shift key up


def test_a_signature_answers_for_its_card_and_window_alone() -> None:
    code = read_pass(TEXT)
    assert code is not None
    assert not is_signed(replace(code, window=code.window + 1), PHONE.public_key)
    other = str(UUID(int=UUID(CARD_ID).int + 1))
    assert not is_signed(replace(code, card_id=other), PHONE.public_key)


def test_no_mutation_of_a_code_is_believed() -> None:
    """Each place changed to each of some digits; two places at once; cut, lengthened, shifted."""
    chance = random.Random(7)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    mutations = {TEXT[:at] + TEXT[at + 1 :] for at in range(len(TEXT))}
    mutations |= {TEXT + digit for digit in alphabet}
    for _ in range(MUTATIONS):
        changed = list(TEXT)
        for at in chance.sample(range(len(TEXT)), chance.choice((1, 1, 2, 8))):
            changed[at] = chance.choice(alphabet)
        mutations.add("".join(changed))
    mutations.discard(TEXT)
    believed = 0
    for text in mutations:
        code = read_pass(text)
        believed += code is not None and is_signed(code, PHONE.public_key)
    assert believed == 0


@pytest.mark.parametrize(
    "key",
    ["", "A" * 87, "B" * 87, PHONE.public_key[:-1], PHONE.public_key + "A", "é" * 87],
    ids=["nothing", "zeros", "no point", "cut", "longer", "accents"],  # the phone's is drawn anew
)
def test_a_key_that_is_none_believes_nothing(key: str) -> None:
    code = read_pass(TEXT)
    assert code is not None
    assert not is_signed(code, key)


def test_a_compressed_point_is_no_key() -> None:
    raw = PHONE.key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    code = read_pass(TEXT)
    assert code is not None
    assert not is_signed(code, base64.urlsafe_b64encode(raw).rstrip(b"=").decode())


@pytest.mark.parametrize("signature", [bytes(64), b"\xff" * 64, bytes(32) + b"\x01" * 32])
def test_numbers_outside_the_curve_sign_nothing(signature: bytes) -> None:
    code = PassCode(CARD_ID, window_at(AT), signature)
    assert not is_signed(code, PHONE.public_key)


@given(st.text(max_size=200) | st.binary(max_size=120).map(lambda raw: f"CP1.{raw!r}"))
def test_any_text_is_read_or_refused(text: str) -> None:
    code = read_pass(text)
    assert code is None or write_pass(code) == text.upper()
    secret = read_guest(text)
    assert secret is None or f"CG1.{secret}" == text.upper()


@given(st.binary(min_size=16, max_size=16))
def test_a_guests_paper_is_written_in_one_way(secret: bytes) -> None:
    text = write_guest(secret)
    assert f"CG1.{read_guest(text)}" == text
    # The last digit has two bits to spare: other digits would name the same secret.
    twin = text[:-1] + ("B" if text[-1] == "A" else chr(ord(text[-1]) + 1))
    assert read_guest(twin) is None
    assert read_pass(text) is None


def test_a_window_is_good_for_its_half_minute_and_one_before_and_after() -> None:
    window = window_at(AT)
    starts = window * WINDOW_SECONDS
    code = PassCode(CARD_ID, window, b"")
    good = [at - starts for at in range(starts - 90, starts + 120) if code.is_current(at)]
    assert (good[0], good[-1]) == (-30, 59)
    assert len(good) == 90


DOOR = Door(
    "door", "place", "nantes", 1, "in_network", None, "off", AT + 9999, "public", 2, 3000,
    frozenset({"network"}), (AT - 9999,), (AT + 9999,), frozenset({"reader"}),
)  # fmt: skip
CARD = Card(CARD_ID, "member", "active", None, public_key=PHONE.public_key)
MEMBER = Member("member", "active", relation=None, standing="good")
FACTS = Facts(
    DOOR,
    CARD,
    MEMBER,
    locked_down=False,
    people_inside=0,
    is_inside=False,
)


def code_of(window: int) -> PassCode:
    return PassCode(CARD_ID, window, b"")


TAP = Tap("tap", "door", "pass", "hash", "in", NOW, "live", code=code_of(window_at(AT)))


@pytest.mark.parametrize("off", [-1, 0, 1])
def test_the_code_of_this_moment_opens(off: int) -> None:
    assert decide(FACTS, replace(TAP, code=code_of(window_at(AT) + off)), NOW).granted


@pytest.mark.parametrize("window", [None, 0, window_at(AT) - 2, window_at(AT) + 2, 2**32 - 1])
def test_the_code_of_another_moment_does_not_also_for_a_resident(window: int | None) -> None:
    tap = replace(TAP, code=code_of(window) if window is not None else None)
    assert decide(FACTS, tap, NOW).reason == "pass_expired"
    at_home = replace(FACTS, member=replace(MEMBER, relation="resident"))
    assert decide(at_home, tap, NOW).reason == "pass_expired"
    blocked = replace(FACTS, card=replace(CARD, status="blocked"))
    assert decide(blocked, tap, NOW).reason == "credential_blocked"
    assert decide(FACTS, replace(tap, direction="out"), NOW).reason == "exit"


def test_a_late_tap_is_judged_by_its_own_moment() -> None:
    then = NOW - timedelta(hours=5)
    tap = replace(TAP, mode="replay", occurred_at=then, code=code_of(window_at(AT - 5 * 3600)))
    assert decide(FACTS, replace(tap, code=TAP.code), NOW).reason == "pass_expired"
    open_then = replace(FACTS, door=replace(DOOR, open_from=(AT - 99999,)))
    assert decide(open_then, tap, NOW).granted


def test_a_tap_is_of_the_phone_that_signed_it() -> None:
    tap = replace(TAP, code=read_pass(TEXT))
    assert is_own(tap, CARD)
    assert not is_own(tap, replace(CARD, public_key=OTHER_PHONE.public_key))
    assert not is_own(tap, replace(CARD, public_key=None))
    assert not is_own(replace(tap, code=None), CARD)
    assert not is_own(TAP, CARD)
    assert is_own(replace(TAP, credential_type="uid", code=None), CARD)


def test_the_curve_is_the_one_that_browsers_have() -> None:
    assert isinstance(PHONE.key.curve, ec.SECP256R1)
