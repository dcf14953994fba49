"""Errors as RFC 9457 problem documents, `application/problem+json`.

`code` is a stable name in snake_case, `errors` names the fields at fault. A handler raises Problem;
what nobody foresaw becomes a 500 that says nothing of the inside.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import asyncpg
import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from common.db import SERVER_AWAY
from common.logging import get_logger

MEDIA_TYPE = "application/problem+json"

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field, named as in `body.minutes` or `query.limit`."""

    field: str
    message: str


class Problem(Exception):
    """An answer with a 4xx or 5xx status. Raised anywhere below a route; nothing was changed."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        field: str | None = None,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {detail}")
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = (FieldError(field, detail),) if field else tuple(errors)
        self.headers = dict(headers or {})

    def document(self) -> dict[str, Any]:
        """The problem document."""
        return {
            "type": f"/problems/{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "errors": [{"field": error.field, "message": error.message} for error in self.errors],
        }

    def response(self) -> Response:
        return Response(
            orjson.dumps(self.document()), self.status, self.headers, media_type=MEDIA_TYPE
        )


def not_found(what: str = "thing", *, field: str | None = None) -> Problem:
    """404, the same for what does not exist and for what the caller may not know to exist."""
    return Problem(404, "not_found", f"There is no such {what}.", field=field)


def forbidden(
    detail: str = "Your role does not allow this.", *, field: str | None = None
) -> Problem:
    return Problem(403, "forbidden", detail, field=field)


def unauthenticated(detail: str = "A valid access token is required.") -> Problem:
    return Problem(401, "unauthenticated", detail, headers={"WWW-Authenticate": "Bearer"})


def conflict(code: str, detail: str, *, field: str | None = None) -> Problem:
    return Problem(409, code, detail, field=field)


def invalid(field: str, message: str, code: str = "invalid") -> Problem:
    """422 about one field."""
    return Problem(422, code, message, field=field)


def unavailable(detail: str = "The service cannot answer now. Try again.") -> Problem:
    return Problem(503, "unavailable", detail, headers={"Retry-After": "2"})


CODES = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    415: "unsupported_media_type",
}


async def on_problem(_request: Request, error: Exception) -> Response:
    if not isinstance(error, Problem):
        raise error
    return error.response()


async def on_http_exception(_request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    code = CODES.get(error.status_code, "http_error")
    return Problem(
        error.status_code, code, str(error.detail), headers=error.headers or {}
    ).response()


async def on_invalid_request(_request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    errors = [
        FieldError(".".join(str(part) for part in item["loc"]) or "body", str(item["msg"]))
        for item in error.errors()
    ]
    malformed = any(item["type"] == "json_invalid" for item in error.errors())
    if malformed:
        return Problem(
            400, "malformed_json", "The body is not valid JSON.", errors=errors
        ).response()
    detail = "; ".join(f"{item.field}: {item.message}" for item in errors[:5])
    return Problem(422, "invalid", detail, errors=errors[:50]).response()


async def on_database_busy(_request: Request, error: Exception) -> Response:
    """The database is away, restarting, full, or a lock was not to be had in time."""
    log.warning("database_unavailable", error=type(error).__name__)
    return unavailable().response()


async def on_bad_data(_request: Request, error: Exception) -> Response:
    """A value that passed the edge and that PostgreSQL cannot hold. Refused, and worth a look."""
    log.error("value_refused_by_database", error=type(error).__name__)
    return Problem(422, "invalid", "A value cannot be stored.").response()


async def on_unforeseen(_request: Request, error: Exception) -> Response:
    log.error("request_failed", exc_info=error)
    return Problem(500, "internal", "Something went wrong on our side.").response()


ExceptionHandler = Callable[[Request, Exception], Awaitable[Response]]
HANDLERS: dict[type[Exception], ExceptionHandler] = {
    Problem: on_problem,
    HTTPException: on_http_exception,
    RequestValidationError: on_invalid_request,
    **dict.fromkeys(SERVER_AWAY, on_database_busy),
    asyncpg.DataError: on_bad_data,
    Exception: on_unforeseen,
}


def install(app: FastAPI) -> None:
    """Make every error answer of an app a problem document."""
    for kind, handler in HANDLERS.items():
        app.add_exception_handler(kind, handler)


async def answer_to(request: Request, error: Exception) -> Response:
    """The answer that an app gives to an error, for what is answered in front of it."""
    handler = next(HANDLERS[kind] for kind in type(error).__mro__ if kind in HANDLERS)
    return await handler(request, error)
