"""The first federation admin: somebody has to be there before anybody can be let in."""

from datetime import datetime
from uuid import UUID

from common import db
from common.problems import Problem
from identity import events, service, store
from identity.domain import Malformed, Member, normalise_email, normalise_password
from identity.passwords import Passwords
from identity.settings import IdentitySettings


class BootstrapError(Exception):
    """Why the admin was not made, in words for the person at the terminal."""


async def make_first_admin(
    settings: IdentitySettings,
    *,
    email: str,
    password: str,
    display_name: str,
    member_id: UUID,
    now: datetime,
) -> tuple[Member, bool]:
    """The federation admin with this login, and whether they were made now.

    One who is there already stays as they are, their password too. Raises BootstrapError when the
    login is somebody else's, or malformed.
    """
    try:
        login = normalise_email(email)
        secret = normalise_password(password)
    except Malformed as error:
        raise BootstrapError(str(error)) from error
    passwords = Passwords(at_once=1, waiting_max=1)
    password_hash = await passwords.hash(secret)
    connection = await db.connect(
        settings.database_url.get_secret_value(), name="identity-bootstrap"
    )
    try:
        async with connection.transaction():
            await store.lock_federation(connection)
            known = await store.find_login(connection, login)
            if known is not None:
                return check_known(known[0]), False
            member = Member(
                member_id=member_id,
                city_id=None,
                display_name=display_name,
                email=login,
                status="active",
                roles=frozenset({"federation_admin"}),
                places={},
                version=1,
                created_at=now,
            )
            await service.insert_member(connection, member, password_hash)
            await events.member_changed(connection, member, now)
            return member, True
    except Problem as problem:
        raise BootstrapError(problem.detail) from problem
    finally:
        await connection.close(timeout=5)


def check_known(member: Member) -> Member:
    if "federation_admin" not in member.roles or member.status != "active":
        raise BootstrapError("this login belongs to somebody who is no active federation admin")
    return member
