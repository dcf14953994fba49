"""Notices over HTTP: one's own, and nobody else's."""

import base64
import binascii
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import urlsplit
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field, StrictBool, StringConstraints

from common.db import Conn
from common.fields import Body
from common.ids import new_id
from common.pages import Page
from common.problems import conflict, forbidden, invalid
from common.web import StrictRoute
from identity import store as people
from identity.commands import CurrentActor, CurrentCommand, CurrentContext, Cursor, Limit
from identity.domain import Actor
from identity.notices import push, service, store
from identity.notices.domain import (
    UNREAD_COUNTED_MAX,
    EmailChoice,
    Language,
    Notice,
    Preferences,
    Subscription,
)
from identity.notices.texts import LANGUAGES, sentence
from identity.vault import to_base64url

router = APIRouter(prefix="/v1", route_class=StrictRoute, tags=["notices"])


async def require_member(actor: CurrentActor) -> Actor:
    """Raises Problem 403 for a service."""
    if actor.kind != "member":
        raise forbidden("A service is no member.")
    return actor


CurrentMember = Annotated[Actor, Depends(require_member)]


class NoticeAnswer(BaseModel):
    """`kind` and `subject` (ids, minutes, dates) as the service said that told of it; `text` in
    words."""

    notice_id: UUID
    kind: str
    subject: dict[str, Any]
    text: dict[Language, str]
    created_at: datetime
    read_at: datetime | None

    @classmethod
    def of(cls, notice: Notice) -> "NoticeAnswer":
        return cls(
            notice_id=notice.notice_id,
            kind=notice.kind,
            subject=dict(notice.subject),
            text={each: sentence(notice.kind, notice.subject, each) for each in LANGUAGES},
            created_at=notice.created_at,
            read_at=notice.read_at,
        )


class NoticePage(Page[NoticeAnswer]):
    unread: int = Field(description=f"how many are unread; {UNREAD_COUNTED_MAX}: as many or more")


class ReadAnswer(BaseModel):
    read: int


@router.get("/notices")
async def list_notices(
    context: CurrentContext,
    actor: CurrentMember,
    unread: Annotated[bool | None, Query(description="only unread ones, or only read ones")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> NoticePage:
    """The caller's notices of the last 180 days, the newest first. For whoever has a member's
    token.
    """
    async with context.pool.acquire() as conn:
        found = await store.list_notices(
            conn, member_id=actor.id, unread=unread, after=cursor, limit=limit + 1
        )
        count = await store.count_unread(conn, actor.id, limit=UNREAD_COUNTED_MAX)
    return NoticePage.of(
        found, limit, NoticeAnswer.of, lambda notice: notice.notice_id, unread=count
    )


@router.post("/notices/{notice_id}/read", response_model=NoticeAnswer)
async def read_notice(notice_id: UUID, command: CurrentCommand, actor: CurrentMember) -> Response:
    """Mark one of the caller's notices as read."""
    return await command.run(
        {},
        lambda conn: service.read_notice(conn, actor.id, notice_id, command.context.clock()),
        NoticeAnswer.of,
    )


@router.post("/notices/read-all", response_model=ReadAnswer)
async def read_all_notices(command: CurrentCommand, actor: CurrentMember) -> Response:
    """Mark all of the caller's notices as read; `read` says how many were not."""

    async def read_all(conn: Conn) -> ReadAnswer:
        now = command.context.clock()
        return ReadAnswer(read=await store.mark_all_read(conn, member_id=actor.id, now=now))

    return await command.run({}, read_all, lambda answer: answer)


class SetPreferences(Body):
    """`email`: never, one a day at 18:00 of the city, or one for each notice."""

    email: EmailChoice
    push: StrictBool
    language: Language


class PreferencesAnswer(BaseModel):
    email: EmailChoice
    push: bool
    language: Language
    email_available: bool = Field(description="this installation sends e-mail, and has an address")
    email_failing: bool = Field(description="the last e-mail did not get through")
    push_key: str | None = Field(
        description="`applicationServerKey` for the browser, base64url; null: no push here"
    )


async def preferences_answer(
    conn: Conn, context: CurrentContext, actor: Actor, preferences: Preferences
) -> PreferencesAnswer:
    member = await people.get_member(conn, actor.id)
    return PreferencesAnswer(
        email=preferences.email,
        push=preferences.push,
        language=preferences.language,
        email_available=bool(context.settings.smtp_url and member and member.email),
        email_failing=await store.last_email_failed(conn, actor.id),
        push_key=push_key(context),
    )


def push_key(context: CurrentContext) -> str | None:
    if not context.settings.push_contact:
        return None
    return to_base64url(push.to_point(context.vault.push_key.public_key()))


@router.get("/me/notifications")
async def read_preferences(context: CurrentContext, actor: CurrentMember) -> PreferencesAnswer:
    """How the caller is told of notices. For whoever has a member's token."""
    async with context.pool.acquire() as conn:
        preferences = await store.get_preferences(conn, actor.id)
        return await preferences_answer(conn, context, actor, preferences)


@router.put("/me/notifications", response_model=PreferencesAnswer)
async def set_preferences(
    body: SetPreferences, command: CurrentCommand, actor: CurrentMember
) -> Response:
    """Choose how to be told of notices; in the app they are in any case."""
    chosen = Preferences(email=body.email, push=body.push, language=body.language)

    async def choose(conn: Conn) -> PreferencesAnswer:
        await service.choose(conn, actor.id, chosen)
        return await preferences_answer(conn, command.context, actor, chosen)

    return await command.run(body.model_dump(), choose, lambda answer: answer)


Encoded = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class PushKeys(Body):
    p256dh: Encoded
    auth: Encoded


class Subscribe(Body):
    """What `PushSubscription.toJSON()` gives in a browser."""

    subscription_id: UUID | None = None
    endpoint: Annotated[str, StringConstraints(min_length=1, max_length=push.ENDPOINT_LENGTH_MAX)]
    expirationTime: float | None = None  # noqa: N815 - the browser's name
    keys: PushKeys


class SubscriptionAnswer(BaseModel):
    """`push_service`: the host of the address; the rest of it is a secret."""

    subscription_id: UUID
    push_service: str
    created_at: datetime

    @classmethod
    def of(cls, subscription: Subscription) -> "SubscriptionAnswer":
        return cls(
            subscription_id=subscription.subscription_id,
            push_service=urlsplit(subscription.endpoint).hostname or "",
            created_at=subscription.created_at,
        )


class SubscriptionsAnswer(BaseModel):
    items: list[SubscriptionAnswer]


def read_base64url(text: str, field: str) -> bytes:
    """Raises Problem 422."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid(f"body.keys.{field}", "This is not base64url.") from error


@router.post("/me/push-subscriptions", status_code=201, response_model=SubscriptionAnswer)
async def subscribe(body: Subscribe, command: CurrentCommand, actor: CurrentMember) -> Response:
    """Have notices sent to this browser. Of a member's browsers the ten latest are kept."""
    context = command.context
    if not context.settings.push_contact:
        raise conflict("push_not_available", "This installation sends no web push.")
    p256dh = read_base64url(body.keys.p256dh, "p256dh")
    auth = read_base64url(body.keys.auth, "auth")
    try:
        endpoint = push.read_endpoint(body.endpoint)
        push.read_keys(p256dh, auth)
    except push.Malformed as error:
        where = "body.endpoint" if error.field == "endpoint" else f"body.keys.{error.field}"
        raise invalid(where, f"{error}.", "subscription_malformed") from error
    subscription = Subscription(
        subscription_id=body.subscription_id or new_id(),
        member_id=actor.id,
        endpoint=endpoint,
        p256dh=p256dh,
        auth=auth,
        created_at=context.clock(),
    )
    # A secret, kept as what tells two requests apart only.
    request = context.vault.fingerprint("push", body.model_dump_json())
    return await command.run(
        {"subscription": request},
        lambda conn: service.subscribe(conn, subscription),
        SubscriptionAnswer.of,
        status=201,
    )


@router.get("/me/push-subscriptions")
async def list_subscriptions(context: CurrentContext, actor: CurrentMember) -> SubscriptionsAnswer:
    """The caller's browsers that get notices. For whoever has a member's token."""
    async with context.pool.acquire() as conn:
        found = await store.list_subscriptions(conn, actor.id)
    return SubscriptionsAnswer(items=[SubscriptionAnswer.of(each) for each in found])


@router.delete("/me/push-subscriptions/{subscription_id}", response_model=SubscriptionAnswer)
async def unsubscribe(
    subscription_id: UUID, command: CurrentCommand, actor: CurrentMember
) -> Response:
    """Send nothing to this browser any more."""
    return await command.run(
        {},
        lambda conn: service.unsubscribe(conn, actor.id, subscription_id),
        SubscriptionAnswer.of,
    )
