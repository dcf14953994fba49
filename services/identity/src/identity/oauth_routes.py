"""The token endpoint, revocation and the key set: their shapes are the RFCs', not problem+json."""

import ipaddress
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from common.problems import Problem
from common.web import StrictRoute
from identity import oauth
from identity.answers import KeySetAnswer, OAuthErrorAnswer, TokenAnswer
from identity.commands import CurrentContext
from identity.oauth import OAuthError

router = APIRouter(route_class=StrictRoute, tags=["tokens"])

NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}
# Verifiers keep the key set on their own account; a proxy may for a minute.
KEY_SET_CACHING = {"Cache-Control": "public, max-age=60"}


def form_schema(properties: dict[str, str], *required: str) -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": list(required),
        "properties": {
            name: {"type": "string", "description": text} for name, text in properties.items()
        },
    }
    return {
        "requestBody": {
            "required": True,
            "content": {"application/x-www-form-urlencoded": {"schema": schema}},
        }
    }


ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": OAuthErrorAnswer},
    401: {"model": OAuthErrorAnswer},
    429: {"model": OAuthErrorAnswer},
}


@router.post(
    "/v1/oauth/token",
    response_model=TokenAnswer,
    responses=ERRORS,
    openapi_extra=form_schema(
        {
            "grant_type": "password, refresh_token or client_credentials",
            "username": "password: the e-mail address",
            "password": "password",
            "refresh_token": "refresh_token: good for one use",
            "client_id": "client_credentials, unless sent by HTTP Basic",
            "client_secret": "client_credentials, unless sent by HTTP Basic",
            "audience": "the services that the token is for, parted by spaces; all without it",
        },
        "grant_type",
    ),
)
async def issue_token(request: Request, context: CurrentContext) -> JSONResponse:
    """Give an access token (RFC 6749)."""
    try:
        form = oauth.parse_form(await request.body(), request.headers.get("content-type", ""))
        tokens = await oauth.grant(
            context,
            form,
            authorization=request.headers.get("authorization"),
            address=counted_address(request.client.host if request.client else ""),
        )
    except OAuthError as error:
        return error_response(error)
    except Problem as problem:
        return error_response(
            OAuthError(
                "temporarily_unavailable",
                problem.detail,
                status=problem.status,
                headers=problem.headers,
            )
        )
    answer = TokenAnswer(
        access_token=tokens.access_token,
        expires_in=tokens.expires_in,
        refresh_token=tokens.refresh_token,
    )
    return JSONResponse(answer.model_dump(exclude_none=True), headers=NO_STORE)


@router.post(
    "/v1/oauth/revoke",
    response_class=Response,  # 200 without a body
    responses=ERRORS,
    openapi_extra=form_schema({"token": "a refresh token"}, "token"),
)
async def revoke_token(request: Request, context: CurrentContext) -> Response:
    """Log out: the refresh token and all that follow it end (RFC 7009)."""
    try:
        form = oauth.parse_form(await request.body(), request.headers.get("content-type", ""))
        await oauth.revoke(context, form)
    except OAuthError as error:
        return error_response(error)
    return Response(status_code=200, headers=NO_STORE)


@router.get("/.well-known/jwks.json", response_model=KeySetAnswer)
async def key_set(context: CurrentContext) -> JSONResponse:
    """The public keys that access tokens are signed with (RFC 7517, RFC 8037)."""
    return JSONResponse(await context.ring.key_set(), headers=KEY_SET_CACHING)


def error_response(error: OAuthError) -> JSONResponse:
    body = {"error": error.error, "error_description": error.description}
    return JSONResponse(body, error.status, {**NO_STORE, **error.headers})


def counted_address(host: str) -> str:
    """The address that failures are counted for: of IPv6 the /64, which one customer has whole."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host[:100]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
