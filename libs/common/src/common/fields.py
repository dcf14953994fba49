"""Field types for request bodies. Strict: no guess turns one type into another."""

import re
import unicodedata
from datetime import date
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
)

MINUTES_MAX = 2**53 - 1  # what every JSON reader can hold exactly
DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class Body(BaseModel):
    """Base of the request bodies: an unknown field is an error, not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def printable(text: str) -> str:
    """Refuse control characters and direction overrides, which make a page lie about a text."""
    for character in text:
        if unicodedata.category(character) in {"Cc", "Cs"} and character not in "\n\t":
            raise ValueError("must not contain control characters")
        if character in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069":
            raise ValueError("must not contain direction overrides")
    return unicodedata.normalize("NFC", text)


def single_line(text: str) -> str:
    if "\n" in text or "\t" in text:
        raise ValueError("must be a single line")
    return text


def visible(text: str) -> str:
    """Refuse what shows nothing: marks, joiners and spaces without a letter, digit or sign."""
    if not any(unicodedata.category(character)[0] in "LNPS" for character in text):
        raise ValueError("must show something")
    return text


def written_day(value: object) -> object:
    """Refuse numbers and instants, which would be taken for a day by a guess."""
    if not isinstance(value, str) or not DAY.fullmatch(value):
        raise ValueError("must be a day, written YYYY-MM-DD")
    return value


ShortText = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200),
    AfterValidator(printable),
    AfterValidator(single_line),
    AfterValidator(visible),
]
LongText = Annotated[
    str, StringConstraints(strip_whitespace=True, max_length=2000), AfterValidator(printable)
]
Slug = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{1,39}$")]
Minutes = Annotated[int, Field(strict=True, ge=1, le=MINUTES_MAX)]
Day = Annotated[date, BeforeValidator(written_day, json_schema_input_type=date)]
