"""POST /v1/transfers in front of the framework.

The framework's routing, dependencies and answer model take longer than all that the service does
for a transfer. What is done, and for whom, is that of the route: this calls the same function.
"""

from fastapi import Request, Response

from common.auth import current_principal, optional_principal
from common.idempotency import check_key
from common.strict import read_body
from timebank import routes


async def post_transfer(request: Request) -> Response:
    """Raises what the route's dependencies and the route itself raise."""
    principal = await current_principal(await optional_principal(request))
    key = await check_key(request, request.headers.get("idempotency-key"))
    body = await read_body(request, routes.TransferBody)
    view = await routes.post_transfer(
        body=body,
        key=key,
        actor=routes.to_actor(principal),
        ledger=routes.get_ledger(request),
        pool=routes.get_pool(request),
    )
    return Response(view.model_dump_json(), 201, media_type="application/json")


DIRECT = {("POST", "/v1/transfers"): post_transfer}
