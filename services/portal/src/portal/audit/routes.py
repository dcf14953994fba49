"""Pages of audits: what is on its way, what looks odd, who looked, one pair, and files of it."""

import asyncio
from datetime import timedelta
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import Response

from portal.audit import calls
from portal.audit.calls import Anomaly
from portal.clearing.calls import positions
from portal.forms import Form, as_uuid
from portal.network import Refused
from portal.people import names_of
from portal.session import Session
from portal.visit import CurrentVisit, Visit, city_name, next_link

router = APIRouter()

City = Annotated[str, Query(max_length=40)]
# The first of each is what a newcomer most likely looks for.
PERIODS = {"30": 30, "90": 90, "365": 365}
TABLES = ("crossings", "positions", "in-transit", "anomalies", "looks")
# The figures of a finding that are times.
MINUTES = frozenset({"minutes", "median", "there", "back", "there_before", "back_before"})


def auditor(visit: Visit) -> Session:
    """Raises Refused for everybody else."""
    member = visit.member()
    if not member.has("auditor", "federation_admin", "steward"):
        raise Refused("timebank", 403, "forbidden", "not an auditor")
    return member


def asked_for(visit: Visit, city: str, days: str = "") -> dict[str, str]:
    """The city and the period as the time bank is asked; a steward's city is their own."""
    member = auditor(visit)
    if not member.has("auditor", "federation_admin"):
        city = member.city_id or ""
    params = {"city_id": city} if city else {}
    if days:
        since = visit.now - timedelta(days=PERIODS.get(days, 30))
        params["from"] = since.isoformat()
    return params


@router.get("/cities/audit")
async def audit(visit: CurrentVisit, city: City = "", days: City = "30") -> Response:
    """What a federation admin looks at first."""
    member = auditor(visit)
    days = days if days in PERIODS else "30"
    network, token = visit.network, member.access_token
    place = asked_for(visit, city)
    waiting, found, looks = await asyncio.gather(
        calls.waiting(network, token, place),
        visit.part(calls.anomalies(network, token, asked_for(visit, city, days))),
        visit.part(calls.looks(network, token, place)),
    )
    names = await names_of(visit, (as_uuid(look.actor_id) for look in looks or ()))
    return visit.page(
        "audit/audit.html",
        form=Form({"city": city, "days": days}),
        cities=[("", visit.t("position.all")), *await cities_of(visit)],
        periods=[(key, visit.t("audit.days", n=n)) for key, n in PERIODS.items()],
        everywhere=member.has("auditor", "federation_admin"),
        waiting=waiting,
        found=found,
        reason_of=partial(reason_of, visit),
        looks=looks,
        names=names,
        tables=TABLES,
    )


def reason_of(visit: Visit, one: Anomaly) -> str:
    """What the rule saw, in the visitor's language; as the service says it if that fails."""
    key = f"audit.because_{one.rule}"
    shown: dict[str, Any] = {
        name: visit.t.minutes(round(value)) if name in MINUTES else round(value)
        for name, value in one.figures.items()
    }
    try:
        return visit.t(key, **shown) if visit.t.knows(key) else one.reason
    except KeyError:
        return one.reason


async def cities_of(visit: Visit) -> list[tuple[str, str]]:
    """The cities that clear with others, as choices; none when the time bank does not tell."""
    member = visit.member()
    if not member.has("auditor", "federation_admin"):
        return []
    found = await visit.part(positions(visit.network, member.access_token)) or []
    return [(one, city_name(one)) for one in sorted({one.city_id for one in found})]


@router.get("/cities/audit/pair")
async def pair(
    visit: CurrentVisit,
    city: City,
    peer: City,
    days: City = "30",
    cursor: Annotated[str, Query(max_length=20)] = "",
) -> Response:
    """Every minute between two cities, as the first of them keeps it."""
    params = {**asked_for(visit, city, days), "city_id": city, "peer_city_id": peer}
    if cursor:
        params["cursor"] = cursor
    statement = await calls.pair(visit.network, visit.member().access_token, params)
    path, kept = "/cities/audit/pair", {"city": city, "peer": peer, "days": days}
    return visit.page(
        "audit/pair.html",
        city=city,
        peer=peer,
        days=days,
        it=statement,
        next_link=next_link(path, statement.next, **kept) if statement.next else None,
    )


@router.get("/cities/audit/files")
async def files(
    visit: CurrentVisit,
    table: Literal["crossings", "positions", "in-transit", "anomalies", "looks", "statement"],
    city: City = "",
    peer: City = "",
    days: City = "30",
    format: Literal["csv", "parquet"] = "csv",
) -> Response:
    """A table for one's own tools, with the checkpoints by which it can be verified."""
    params = {**asked_for(visit, city, days), "format": format}
    if peer:
        params["peer_city_id"] = peer
    try:
        content = await visit.network.download(
            "timebank",
            f"/v1/audit/exports/{table}",
            token=visit.member().access_token,
            params=params,
        )
    except Refused as refused:
        return visit.refused(refused, "/cities/audit")
    name = f"copass-{table}-{visit.now:%Y-%m-%d}.zip"
    return visit.download(content, name, "application/zip")
