"""No way round the note that an auditor looked."""

from collections.abc import Iterator

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from common.auth import current_principal
from timebank import routes
from timebank.audit.routes import router as audit_router
from timebank.clearing.routes import router as clearing_router
from timebank.netting.routes import router as netting_router
from timebank.reconciliation.routes import router as reconciliation_router

ROUTERS = (routes.router, audit_router, clearing_router, netting_router, reconciliation_router)


def all_of(dependant: Dependant) -> Iterator[object]:
    yield dependant.call
    for each in dependant.dependencies:
        yield from all_of(each)


def test_every_question_of_somebody_known_is_noted() -> None:
    asked, unseen = 0, []
    for router in ROUTERS:
        for route in router.routes:
            if not isinstance(route, APIRoute) or "GET" not in route.methods:
                continue
            needed = set(all_of(route.dependant))
            asked += current_principal in needed
            if current_principal in needed and routes.current_actor not in needed:
                unseen.append(route.path)
    assert asked > 15
    assert unseen == []
