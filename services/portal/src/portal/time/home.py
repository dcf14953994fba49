"""The page on which a member sees how they stand. Each part of it may be away by itself."""

import asyncio

from fastapi import APIRouter
from fastapi.responses import Response

from portal.clearing.routes import newest
from portal.network import Unavailable
from portal.pledges import calls as pledges
from portal.pledges.routes import standing_of
from portal.time.routes import account_of
from portal.time.waiting import waiting_for
from portal.visit import CurrentVisit

router = APIRouter()

MOVEMENTS = 10


@router.get("/time")
async def home(visit: CurrentVisit) -> Response:
    member = visit.member()
    token = member.access_token
    try:
        account = await account_of(visit)
    except Unavailable:
        return visit.page("time/home.html", 503, account=None, available=False)
    if account is None:
        return visit.page("time/home.html", account=None, available=True)
    postings, waiting, found, standing, between = await asyncio.gather(
        visit.part(visit.network.postings(token, account.account_id, MOVEMENTS)),
        waiting_for(visit),
        visit.part(pledges.running(visit.network, token, member.member_id)),
        visit.part(standing_of(visit)),
        newest(visit),
    )
    return visit.page(
        "time/home.html",
        account=account,
        available=True,
        postings=postings,
        waiting=waiting,
        pledges=found,
        running=found[0] if found else None,
        standing=standing,
        between=between,
    )
