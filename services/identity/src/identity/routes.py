"""The HTTP interface: parse, call the service, map the answer."""

import zoneinfo
from functools import cache
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import AfterValidator, Field, SecretStr, StringConstraints

from common.fields import Body, ShortText, Slug
from common.ids import new_id
from common.pages import Page
from common.problems import forbidden, invalid, not_found
from common.web import StrictRoute
from identity import domain, service, store
from identity.answers import (
    CityAnswer,
    ClientAnswer,
    ClientWithSecret,
    MemberAnswer,
    OrganisationAnswer,
    ReaderAnswer,
    ReaderWithKey,
)
from identity.commands import CurrentActor, CurrentCommand, CurrentContext, Cursor, Limit
from identity.domain import Malformed
from identity.passes import service as passes

router = APIRouter(prefix="/v1", route_class=StrictRoute)


@cache
def timezones() -> frozenset[str]:
    """Read once: it is a walk through the whole time zone database."""
    return frozenset(zoneinfo.available_timezones())


def known_timezone(name: str) -> str:
    if name not in timezones():
        raise ValueError("must be a time zone of the IANA database, such as Europe/Paris")
    return name


Timezone = Annotated[str, StringConstraints(max_length=64), AfterValidator(known_timezone)]
Roles = Annotated[list[Annotated[str, StringConstraints(max_length=40)]], Field(max_length=20)]


# Cities


class CreateCity(Body):
    city_id: Slug
    name: ShortText
    timezone: Timezone


@router.post("/cities", status_code=201, response_model=CityAnswer, tags=["cities"])
async def create_city(body: CreateCity, command: CurrentCommand) -> Response:
    """Admit a city to the federation."""
    return await command.run(
        body.model_dump(mode="json"),
        lambda conn: service.create_city(
            conn,
            command.actor,
            city_id=body.city_id,
            name=body.name,
            timezone=body.timezone,
            now=command.context.clock(),
        ),
        CityAnswer.of,
        status=201,
    )


@router.get("/cities", tags=["cities"])
async def list_cities(
    context: CurrentContext,
    _actor: CurrentActor,
    limit: Limit = 50,
    cursor: Annotated[Slug | None, Query(description="`next` of the page before")] = None,
) -> Page[CityAnswer]:
    """The cities of the federation. For whoever has a token."""
    async with context.pool.acquire() as conn:
        cities = await store.list_cities(conn, after=cursor, limit=limit + 1)
    return Page[CityAnswer].of(cities, limit, CityAnswer.of, lambda city: city.city_id)


@router.get("/cities/{city_id}", tags=["cities"])
async def read_city(city_id: str, context: CurrentContext, _actor: CurrentActor) -> CityAnswer:
    """One city. For whoever has a token."""
    async with context.pool.acquire() as conn:
        city = await store.get_city(conn, city_id)
    if city is None:
        raise not_found("city")
    return CityAnswer.of(city)


# Members


class CreateMember(Body):
    """`city_id` null: somebody of the federation's own staff, made by a federation admin."""

    member_id: UUID | None = None
    city_id: Slug | None
    display_name: ShortText
    email: Annotated[str, StringConstraints(max_length=320)] | None = None
    password: Annotated[SecretStr, Field(max_length=1000)] | None = None


def read_email(email: str) -> str:
    try:
        return domain.normalise_email(email)
    except Malformed as error:
        raise invalid("body.email", f"{error}.", "email_malformed") from error


def read_password(field: str, password: SecretStr) -> str:
    try:
        return domain.normalise_password(password.get_secret_value())
    except Malformed as error:
        raise invalid(field, f"{error}.", "password_refused") from error


@router.post("/members", status_code=201, response_model=MemberAnswer, tags=["members"])
async def create_member(body: CreateMember, command: CurrentCommand) -> Response:
    """Admit a member to a city. With e-mail and password they can log in."""
    context = command.context
    if not command.actor.manages(body.city_id, "steward"):
        # Before the costly hash; the service decides again inside the transaction.
        raise forbidden()
    if body.password is not None and body.email is None:
        raise invalid("body.email", "A password needs an e-mail address to log in with.")
    email = read_email(body.email) if body.email is not None else None
    password = read_password("body.password", body.password) if body.password else None
    password_hash = await context.passwords.hash(password) if password else None
    salt = context.vault.password_salt
    fingerprint = await context.passwords.fingerprint(salt, password) if password else None
    member_id = body.member_id or new_id()
    return await command.run(
        {
            **body.model_dump(mode="json", exclude={"password"}),
            "password": fingerprint,
        },
        lambda conn: service.create_member(
            conn,
            command.actor,
            member_id=member_id,
            city_id=body.city_id,
            display_name=body.display_name,
            email=email,
            password_hash=password_hash,
            now=context.clock(),
        ),
        MemberAnswer.of,
        status=201,
    )


@router.get("/members", tags=["members"])
async def list_members(
    context: CurrentContext,
    actor: CurrentActor,
    city_id: Slug,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[MemberAnswer]:
    """The members of a city. For its stewards and the federation's admins."""
    if not actor.manages(city_id, "steward"):
        raise forbidden()
    async with context.pool.acquire() as conn:
        members = await store.list_members(conn, city_id=city_id, after=cursor, limit=limit + 1)
    return Page[MemberAnswer].of(members, limit, MemberAnswer.of, lambda member: member.member_id)


@router.get("/members/{member_id}", tags=["members"])
async def read_member(
    member_id: UUID, context: CurrentContext, actor: CurrentActor
) -> MemberAnswer:
    """One member. For that member, the stewards of the city, and the federation's admins."""
    async with context.pool.acquire() as conn:
        return MemberAnswer.of(await service.read_member(conn, actor, member_id))


@router.get("/me", tags=["members"])
async def read_me(context: CurrentContext, actor: CurrentActor) -> MemberAnswer:
    """The caller, as far as identity knows them. For whoever has a member's token."""
    if actor.kind != "member":
        raise forbidden("A service is no member.")
    async with context.pool.acquire() as conn:
        return MemberAnswer.of(await service.read_member(conn, actor, actor.id))


class ChangePassword(Body):
    current_password: Annotated[SecretStr, Field(max_length=1000)]
    new_password: Annotated[SecretStr, Field(max_length=1000)]


@router.put("/me/password", response_model=MemberAnswer, tags=["members"])
async def change_password(body: ChangePassword, command: CurrentCommand) -> Response:
    """Change the own password. It ends every login, this one's refresh token included."""
    context, actor = command.context, command.actor
    new = read_password("body.new_password", body.new_password)
    current = body.current_password.get_secret_value()
    await context.throttle.admit_own_password(actor.id)
    async with context.pool.acquire() as conn:
        stored = await store.get_password_hash(conn, actor.id)
    matches = await context.passwords.verify(stored, domain.fold_password(current))
    new_hash = await context.passwords.hash(new)
    salt = context.vault.password_salt
    fingerprint = await context.passwords.fingerprint(salt, current, new)
    answer = await command.run(
        {"passwords": fingerprint},
        # `matches` is judged inside: a repeated command finds the password changed by the first.
        lambda conn: service.change_password(
            conn,
            actor,
            old_hash=stored,
            matches=matches,
            new_hash=new_hash,
            now=context.clock(),
        ),
        MemberAnswer.of,
    )
    await context.throttle.own_password_succeeded(actor.id)
    return answer


@router.post("/members/{member_id}/suspend", response_model=MemberAnswer, tags=["members"])
async def suspend_member(member_id: UUID, command: CurrentCommand) -> Response:
    """Doors stay shut and every login ends, until the member is reinstated. Their guests' passes
    are revoked.
    """
    now = command.context.clock()
    return await command.run(
        {},
        lambda conn: passes.then_guests(
            conn,
            service.change_status(conn, command.actor, member_id, status="suspended", now=now),
            now,
        ),
        MemberAnswer.of,
    )


@router.post("/members/{member_id}/reinstate", response_model=MemberAnswer, tags=["members"])
async def reinstate_member(member_id: UUID, command: CurrentCommand) -> Response:
    """Let a suspended member in again. For the stewards of the city and the federation's admins."""
    return await command.run(
        {},
        lambda conn: service.change_status(
            conn, command.actor, member_id, status="active", now=command.context.clock()
        ),
        MemberAnswer.of,
    )


class SetRoles(Body):
    roles: Roles
    places: Annotated[
        dict[UUID, domain.Relation],
        Field(max_length=domain.PLACES_PER_MEMBER_MAX),
    ]


@router.put("/members/{member_id}/roles", response_model=MemberAnswer, tags=["members"])
async def set_roles(member_id: UUID, body: SetRoles, command: CurrentCommand) -> Response:
    """Give a member exactly these roles and places."""
    if not command.actor.is_federation_admin:
        await service.await_places(command.context.pool, list(body.places))
    now = command.context.clock()
    return await command.run(
        {
            "roles": sorted(set(body.roles)),
            "places": {str(place): relation for place, relation in body.places.items()},
        },
        lambda conn: passes.then_guests(
            conn,
            service.set_roles(
                conn,
                command.actor,
                member_id,
                roles=frozenset(body.roles),
                places={str(place): relation for place, relation in body.places.items()},
                now=now,
            ),
            now,
        ),
        MemberAnswer.of,
    )


# Organisations


class CreateOrganisation(Body):
    organisation_id: UUID | None = None
    city_id: Slug
    name: ShortText
    kind: Slug


@router.post(
    "/organisations", status_code=201, response_model=OrganisationAnswer, tags=["organisations"]
)
async def create_organisation(body: CreateOrganisation, command: CurrentCommand) -> Response:
    """Register an organisation: a payer may not be the user. For the stewards of the city and the
    federation's admins.
    """
    organisation_id = body.organisation_id or new_id()
    return await command.run(
        body.model_dump(mode="json"),
        lambda conn: service.create_organisation(
            conn,
            command.actor,
            organisation_id=organisation_id,
            city_id=body.city_id,
            name=body.name,
            kind=body.kind,
            now=command.context.clock(),
        ),
        OrganisationAnswer.of,
        status=201,
    )


@router.get("/organisations", tags=["organisations"])
async def list_organisations(
    context: CurrentContext,
    actor: CurrentActor,
    city_id: Slug,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[OrganisationAnswer]:
    """The organisations of a city. For its stewards and the federation's admins."""
    if not actor.manages(city_id, "steward"):
        raise forbidden()
    async with context.pool.acquire() as conn:
        found = await store.list_organisations(conn, city_id=city_id, after=cursor, limit=limit + 1)
    return Page[OrganisationAnswer].of(
        found, limit, OrganisationAnswer.of, lambda item: item.organisation_id
    )


@router.get("/organisations/{organisation_id}", tags=["organisations"])
async def read_organisation(
    organisation_id: UUID, context: CurrentContext, actor: CurrentActor
) -> OrganisationAnswer:
    """One organisation. For the stewards of its city and the federation's admins."""
    async with context.pool.acquire() as conn:
        found = await service.read_organisation(conn, actor, organisation_id)
    return OrganisationAnswer.of(found)


# Readers


class CreateReader(Body):
    reader_id: UUID | None = None
    city_id: Slug


@router.post("/readers", status_code=201, response_model=ReaderWithKey, tags=["readers"])
async def create_reader(body: CreateReader, command: CurrentCommand) -> Response:
    """Enrol a door's reader. Only this answer shows its key."""
    reader_id = body.reader_id or new_id()
    return await command.run(
        body.model_dump(mode="json"),
        lambda conn: service.create_reader(
            conn,
            command.actor,
            command.context.vault,
            reader_id=reader_id,
            city_id=body.city_id,
            now=command.context.clock(),
        ),
        ReaderAnswer.of,
        status=201,
        reveal=lambda answer: with_reader_key(command, answer),
    )


def with_reader_key(command: CurrentCommand, answer: dict[str, Any]) -> dict[str, Any]:
    reader_id, generation = UUID(answer["reader_id"]), answer["generation"]
    secret = command.context.vault.machine_secret("reader", reader_id, generation)
    return {**answer, "key": f"{reader_id}.{secret}"}


@router.get("/readers", tags=["readers"])
async def list_readers(
    context: CurrentContext,
    actor: CurrentActor,
    city_id: Slug,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[ReaderAnswer]:
    """The readers of a city, without their keys. For its operators and stewards, and the
    federation's admins.
    """
    if not actor.manages(city_id, "steward", "operator"):
        raise forbidden()
    async with context.pool.acquire() as conn:
        readers = await store.list_readers(conn, city_id=city_id, after=cursor, limit=limit + 1)
    return Page[ReaderAnswer].of(readers, limit, ReaderAnswer.of, lambda reader: reader.reader_id)


@router.post("/readers/{reader_id}/rotate", response_model=ReaderWithKey, tags=["readers"])
async def rotate_reader(reader_id: UUID, command: CurrentCommand) -> Response:
    """A new key; the old one opens nothing from now on."""
    return await command.run(
        {},
        lambda conn: service.rotate_reader(
            conn, command.actor, command.context.vault, reader_id, now=command.context.clock()
        ),
        ReaderAnswer.of,
        reveal=lambda answer: with_reader_key(command, answer),
    )


@router.post("/readers/{reader_id}/revoke", response_model=ReaderAnswer, tags=["readers"])
async def revoke_reader(reader_id: UUID, command: CurrentCommand) -> Response:
    """End a reader's key: what it sends is refused. For the operators and stewards of the city, and
    the federation's admins.
    """
    return await command.run(
        {},
        lambda conn: service.revoke_reader(
            conn, command.actor, reader_id, now=command.context.clock()
        ),
        ReaderAnswer.of,
    )


# Service clients


class CreateClient(Body):
    client_id: UUID | None = None
    name: ShortText
    city_id: Slug | None = None
    roles: Roles = Field(default_factory=list)
    audiences: Annotated[
        list[Literal["identity", "timebank", "access", "places"]],
        Field(min_length=1, max_length=len(domain.AUDIENCES)),
    ] = Field(default_factory=lambda: list(domain.AUDIENCES), validate_default=True)


@router.post("/clients", status_code=201, response_model=ClientWithSecret, tags=["clients"])
async def create_client(body: CreateClient, command: CurrentCommand) -> Response:
    """Register a service. Only this answer shows its secret."""
    client_id = body.client_id or new_id()
    audiences = tuple(name for name in domain.AUDIENCES if name in body.audiences)
    return await command.run(
        body.model_dump(mode="json"),
        lambda conn: service.create_client(
            conn,
            command.actor,
            command.context.vault,
            client_id=client_id,
            name=body.name,
            city_id=body.city_id,
            roles=frozenset(body.roles),
            audiences=audiences,
            now=command.context.clock(),
        ),
        ClientAnswer.of,
        status=201,
        reveal=lambda answer: with_client_secret(command, answer),
    )


def with_client_secret(command: CurrentCommand, answer: dict[str, Any]) -> dict[str, Any]:
    secret = command.context.vault.machine_secret(
        "client", UUID(answer["client_id"]), answer["generation"]
    )
    return {**answer, "client_secret": secret}


@router.get("/clients", tags=["clients"])
async def list_clients(
    context: CurrentContext, actor: CurrentActor, limit: Limit = 50, cursor: Cursor = None
) -> Page[ClientAnswer]:
    """The service clients, without their secrets. For the federation's admins."""
    if not actor.is_federation_admin:
        raise forbidden()
    async with context.pool.acquire() as conn:
        clients = await store.list_clients(conn, after=cursor, limit=limit + 1)
    return Page[ClientAnswer].of(clients, limit, ClientAnswer.of, lambda client: client.client_id)


@router.post("/clients/{client_id}/rotate", response_model=ClientWithSecret, tags=["clients"])
async def rotate_client(client_id: UUID, command: CurrentCommand) -> Response:
    """Give a service client a new secret; the old one is refused at once. For the federation's
    admins.
    """
    return await command.run(
        {},
        lambda conn: service.change_client(
            conn, command.actor, command.context.vault, client_id, revoke=False
        ),
        ClientAnswer.of,
        reveal=lambda answer: with_client_secret(command, answer),
    )


@router.post("/clients/{client_id}/revoke", response_model=ClientAnswer, tags=["clients"])
async def revoke_client(client_id: UUID, command: CurrentCommand) -> Response:
    """End a service client: it gets no more tokens. For the federation's admins."""
    return await command.run(
        {},
        lambda conn: service.change_client(
            conn, command.actor, command.context.vault, client_id, revoke=True
        ),
        ClientAnswer.of,
    )
