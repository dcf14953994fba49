"""What the routes share: who asks, the command that runs once."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, TypeVar
from uuid import UUID

import orjson
from fastapi import Depends, Query, Request, Response
from pydantic import BaseModel

from common.auth import CurrentPrincipal
from common.db import Conn
from common.idempotency import Answer, IdempotencyKey, run_once
from common.problems import unauthenticated
from identity import service
from identity.context import Context
from identity.domain import Actor

T = TypeVar("T")
PAGE_SIZE_MAX = 200

Limit = Annotated[int, Query(ge=1, le=PAGE_SIZE_MAX)]
Cursor = Annotated[UUID | None, Query(description="`next` of the page before")]


def get_context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


CurrentContext = Annotated[Context, Depends(get_context)]


async def get_actor(context: CurrentContext, principal: CurrentPrincipal) -> Actor:
    """Who asks. Raises Problem 401 for one suspended or revoked since the token was given."""
    actor = await service.load_actor(context.pool, principal.sub, principal.kind)
    if actor is None:
        raise unauthenticated("The account is not active.")
    return actor


CurrentActor = Annotated[Actor, Depends(get_actor)]


class Command:
    """One command of one caller: done once for each Idempotency-Key."""

    def __init__(
        self, request: Request, context: CurrentContext, actor: CurrentActor, key: IdempotencyKey
    ) -> None:
        self.request = request
        self.context = context
        self.actor = actor
        self.key = key

    async def run(
        self,
        request_body: Mapping[str, Any],
        do: Callable[[Conn], Awaitable[T]],
        present: Callable[[T], BaseModel],
        *,
        status: int = 200,
        reveal: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ) -> Response:
        """Run `do` in one transaction and answer with what `present` makes of its result.

        `request_body` tells two requests apart; secrets in it are given as fingerprints, as it is
        kept. `reveal` adds to the answer what must not be kept with it.
        """

        async def command(conn: Conn) -> Answer:
            return Answer(status, present(await do(conn)).model_dump(mode="json"))

        answer = await run_once(
            self.context.pool,
            scope=f"{self.actor.id}:{self.request.method} {self.request.url.path}",
            key=self.key,
            request=request_body,
            now=self.context.clock(),
            command=command,
        )
        body = reveal(answer.body) if reveal else answer.body
        # Sorted, so that the answer read back from the database is the same to the last byte.
        content = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
        headers = {"Cache-Control": "no-store"} if reveal else None
        return Response(content, answer.status, headers, media_type="application/json")


CurrentCommand = Annotated[Command, Depends()]
