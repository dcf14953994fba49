import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from common.fields import MINUTES_MAX, LongText, Minutes, ShortText, Slug
from common.strict import parse_json


@pytest.mark.parametrize(
    "body",
    [
        b'{"minutes": NaN}',
        b'{"minutes": Infinity}',
        b'{"minutes": -Infinity}',
        b'{"a": 1, "a": 2}',
        b'{"deep": {"a": 1, "a": 2}}',
        b'{"text": "a\\u0000b"}',
        b'{"a\\u0000": 1}',
        b'["\\ud800"]',
        b'"\xff"',
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b"[" * 990 + b"]" * 990,
        b"[" * 900 + b"]" * 900 + b"x",
        b"",
        b"{",
        b"{}{}",
        b"1" * 6000,
    ],
)
def test_an_ambiguous_body_is_refused_as_malformed(body: bytes) -> None:
    with pytest.raises(json.JSONDecodeError):
        parse_json(body)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**53), 2**53)
        | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner) | st.dictionaries(st.text("abcéß😀", max_size=5), inner),
    )
)
def test_an_ordinary_body_is_read_as_it_was_written(value: object) -> None:
    assert parse_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    "value",
    [0, -1, 1.5, 1.0, "90", "٣", "1_000", True, None, [], {}, 2**53, 2**63, 10**30, float("inf")],
)
def test_minutes_are_whole_positive_and_exact(value: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Minutes).validate_python(value)


@pytest.mark.parametrize("value", [1, 90, MINUTES_MAX])
def test_minutes_within_bounds_pass(value: int) -> None:
    assert TypeAdapter(Minutes).validate_python(value) == value


@pytest.mark.parametrize(
    "text", ["", "   ", "a\nb", "a\x07b", "a\u202eb", "x" * 201, "a\x00", "\u200b"]
)
def test_a_short_text_is_one_printable_line(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(ShortText).validate_python(text)


def test_texts_are_trimmed_and_composed() -> None:
    assert TypeAdapter(ShortText).validate_python("  Zoe\u0301  ") == "Zoé"
    assert TypeAdapter(LongText).validate_python("two\nlines") == "two\nlines"


@pytest.mark.parametrize("slug", ["Nantes", "n", "1st", "a b", "nantes\n", "é", "a" * 41])
def test_a_slug_is_lower_case_ascii(slug: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Slug).validate_python(slug)
