"""Whoever may see every city is seen: each of their questions is noted before it is answered."""

import re

from fastapi import Request

from common.auth import Principal
from timebank.audit import store
from timebank.audit.store import Look, Role

PATH_MAX, QUERY_MAX = 500, 1000
SLUG = re.compile(r"[a-z][a-z0-9-]{1,39}")


def role_of(principal: Principal) -> Role | None:
    """The right by which somebody sees cities that are not theirs."""
    if principal.has("auditor"):
        return "auditor"
    return "federation_admin" if principal.has("federation_admin") else None


async def note_look(request: Request, principal: Principal) -> None:
    """Note a question of an auditor or federation admin; others ask only for what is theirs.

    Raises what the database raises: without the note there is no answer.
    """
    role = role_of(principal)
    if role is None or request.method not in ("GET", "HEAD"):
        return
    city = request.path_params.get("city_id") or request.query_params.get("city_id")
    look = Look(
        looked_at=request.app.state.clock(),
        actor_id=principal.sub,
        role=role,
        city_id=city if isinstance(city, str) and SLUG.fullmatch(city) else None,
        path=request.url.path[:PATH_MAX],
        query=request.url.query[:QUERY_MAX],
    )
    async with request.app.state.pool.acquire() as conn:
        await store.add_look(conn, look)
