"""Nonsense for every field of an OpenAPI: what its type is not, and what has fooled parsers."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import httpx

# Written as they are sent: most are no JSON that a library would write.
VALUES = (
    "NaN",
    "Infinity",
    "-Infinity",
    "1e400",
    "9007199254740992",
    "9223372036854775808",
    "-1",
    "0",
    "1.5",
    "true",
    "null",
    '"1_000"',
    '"١٢"',
    '"12"',
    '"a\\u0000b"',
    '"a\\u202eb"',
    '"\\ud800"',
    '"0001-01-01"',
    '"9999-12-31"',
    '"2026-02-30"',
    '"9999-12-31T23:59:59Z"',
    '"0001-01-01T00:00:00+14:00"',
    '"' + "x" * 3000 + '"',
    '""',
    "[]",
    "{}",
    "[" * 100_000 + "]" * 100_000,
    "[" * 500 + "]" * 500,
)
QUERIES = (
    "NaN",
    "1e400",
    "9223372036854775808",
    "-1",
    "0",
    "true",
    "1_000",
    "١٢",
    "null",
    "\u202e",
    "0001-01-01",
    "9999-12-31",
    "9999-12-31T23:59:59Z",
    "0001-01-01T00:00:00+14:00",
    "2026-02-30",
    "0000-00",
    "x" * 3000,
    "",
    "%",
    "'; --",
)
MARK = "@here@"


def resolve(schema: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = components[schema["$ref"].rsplit("/", 1)[-1]]
    return schema


def places(
    schema: dict[str, Any], components: dict[str, Any], at: tuple[Any, ...] = ()
) -> Iterator[tuple[Any, ...]]:
    """The ways to every field of a body, the first item of each list."""
    schema = resolve(schema, components)
    if at:
        yield at
    for option in schema.get("anyOf", schema.get("oneOf", ())):
        yield from (each for each in places(option, components, at) if each != at)
    for name, each in schema.get("properties", {}).items():
        yield from places(each, components, (*at, name))
    if "items" in schema:
        yield from places(schema["items"], components, (*at, 0))


def written(body: Any, at: tuple[Any, ...], value: str) -> str:
    """The body as text, with this in this place."""

    whole = copy.deepcopy(body)
    here = whole
    for step in at[:-1]:
        if isinstance(step, int):
            if not here:
                here.append({})
            here = here[0]
        else:
            here = here.setdefault(step, [] if at[at.index(step) + 1] == 0 else {})
    if isinstance(here, list):
        here[:1] = [MARK]
    else:
        here[at[-1]] = MARK
    return json.dumps(whole).replace(f'"{MARK}"', value)


def what_is_wrong(answer: httpx.Response) -> str | None:
    """Why an answer to nonsense is not a good one. Some values are right for some fields."""
    if answer.status_code >= 500:
        return "fails"
    if answer.status_code < 400:
        return None
    if answer.headers["content-type"] != "application/problem+json":
        return "is no problem document"
    problem = answer.json()
    if answer.status_code == 422 and not problem["errors"] and problem["code"] == "invalid":
        return "names no field"
    return None
