"""JSON bodies read strictly: what two readers could understand differently is refused."""

import json
import re
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, get_args

import orjson
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException

from common.problems import Problem

JSON_MEDIA = re.compile(r"application/([a-z0-9.+-]+\+)?json\s*(;.*)?$", re.IGNORECASE)
FORM_MEDIA = re.compile(r"(application/x-www-form-urlencoded|multipart/form-data)\s*(;.*)?$", re.I)

WHOLE_NUMBER = re.compile(r"-?[0-9]+")

Model = TypeVar("Model", bound=BaseModel)


def refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise json.JSONDecodeError("an object has the same name twice", "", 0)
    return dict(pairs)


def has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any(has_nul(name) or has_nul(item) for name, item in value.items())
    return isinstance(value, list) and any(has_nul(item) for item in value)


def parse_json(body: bytes) -> Any:
    """Parse a body. Raises json.JSONDecodeError for NaN, Infinity, duplicate names, NUL, lone
    surrogates, invalid UTF-8, and for nesting or numbers beyond all measure."""
    orjson.loads(body)
    try:
        value = json.loads(body, object_pairs_hook=refuse_duplicates)
        contains_nul = has_nul(value)
    except (RecursionError, ValueError) as error:
        if isinstance(error, json.JSONDecodeError):
            raise
        raise json.JSONDecodeError("the body is nested too deeply or too large", "", 0) from error
    if contains_nul:
        raise json.JSONDecodeError("a text contains the NUL character", "", 0)
    return value


async def read_body(request: Request, model: type[Model]) -> Model:
    """A request's JSON body, as a StrictRoute reads it for a handler.

    Raises Problem 415 for another media type, RequestValidationError for what is no such body.
    """
    if not JSON_MEDIA.match(request.headers.get("content-type", "")):
        raise unsupported_media_type()
    raw = await request.body()
    if not raw:
        raise RequestValidationError(
            [{"type": "missing", "loc": ("body",), "msg": "Field required", "input": None}]
        )
    try:
        return model.model_validate(parse_json(raw), from_attributes=True)
    except json.JSONDecodeError as error:
        raise RequestValidationError(
            [{"type": "json_invalid", "loc": ("body", error.pos), "msg": "JSON decode error"}]
        ) from error
    except ValidationError as error:
        raise RequestValidationError(
            [{**item, "loc": ("body", *item["loc"])} for item in error.errors()]
        ) from error


class StrictRequest(Request):
    async def json(self) -> Any:
        return parse_json(await self.body())


class StrictRoute(APIRoute):
    """A route whose JSON body is parsed by `parse_json` and must be declared as JSON (else 415).

    Whole numbers of the query are written in plain digits: `1_000`, `1.0` and `+1` are refused.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        takes_body = self.body_field is not None
        numbers = [
            field.alias
            for field in self.dependant.query_params
            if int in (field.field_info.annotation, *get_args(field.field_info.annotation))
        ]

        async def strict(request: Request) -> Response:
            if takes_body:
                check_media_type(request)
            if numbers and request.scope["query_string"]:
                check_numbers(request, numbers)
            try:
                return await handle(StrictRequest(request.scope, request.receive))
            except HTTPException as error:
                # The framework calls whatever happens while it reads a body a plain 400.
                if isinstance(error.__cause__, Problem):
                    raise error.__cause__ from None
                raise

        return strict


def check_numbers(request: Request, names: list[str]) -> None:
    """Raises Problem 422 for a number of the query that only some readers take for one."""
    for name in names:
        for value in request.query_params.getlist(name):
            if not WHOLE_NUMBER.fullmatch(value):
                raise Problem(422, "invalid", "Write a whole number.", field=f"query.{name}")


def check_media_type(request: Request) -> None:
    media = request.headers.get("content-type", "")
    if not (JSON_MEDIA.match(media) or FORM_MEDIA.match(media)):
        raise unsupported_media_type()


def unsupported_media_type() -> Problem:
    return Problem(
        415,
        "unsupported_media_type",
        "Send the body as application/json.",
        field="header.content-type",
    )
