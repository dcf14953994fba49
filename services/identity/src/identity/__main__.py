"""`python -m identity migrate | api | worker | bootstrap | rotate-keys | deliveries |
dead-letters`."""

import asyncio
from typing import Annotated
from uuid import UUID

import typer
from rich.table import Table

from common import db
from common.cli import console, service_cli
from common.clock import utc_now
from common.ids import new_id
from identity import keys
from identity.app import MIGRATIONS, work
from identity.bootstrap import BootstrapError, make_first_admin
from identity.keys import SigningKey
from identity.notices import store as notices
from identity.settings import IdentitySettings
from identity.vault import Vault


def read_settings() -> IdentitySettings:
    return IdentitySettings()


app = service_cli(
    read_settings, api="identity.app:from_environment", worker=work, migrations=MIGRATIONS
)


@app.command("bootstrap")
def bootstrap(
    email: Annotated[str, typer.Option(help="The login.")],
    password: Annotated[
        str,
        typer.Option(
            envvar="IDENTITY_BOOTSTRAP_PASSWORD",
            help="Better given in the environment: other users see the options of a command.",
        ),
    ],
    name: Annotated[str, typer.Option(help="The name to show.")] = "Federation admin",
) -> None:
    """Make the first federation admin; done again, it changes nothing."""
    try:
        member, made = asyncio.run(
            make_first_admin(
                read_settings(),
                email=email,
                password=password,
                display_name=name,
                member_id=new_id(),
                now=utc_now(),
            )
        )
    except BootstrapError as error:
        console.print(f"[red]{error}[/red]")
        raise typer.Exit(1) from error
    console.print(f"{member.member_id} {'was made' if made else 'was there already'}")


@app.command("rotate-keys")
def rotate_keys(
    compromised: Annotated[
        bool,
        typer.Option("--compromised", help="Withdraw all keys at once: every access token ends."),
    ] = False,
) -> None:
    """Publish the next signing key. It signs when every verifier has heard of it."""
    key = asyncio.run(run_rotation(read_settings(), compromised=compromised))
    console.print(f"{key.kid} signs from {key.signs_from.isoformat(timespec='seconds')}")


async def run_rotation(settings: IdentitySettings, *, compromised: bool) -> SigningKey:
    vault = Vault(settings.key_secret.get_secret_value())
    now = utc_now()
    pool = await db.create_pool(
        settings.database_url.get_secret_value(), name="identity-rotate-keys", max_size=1
    )
    async with pool:
        if compromised:
            return await keys.replace_compromised(pool, vault, now)
        return await keys.rotate(pool, vault, publish_ahead=settings.key_publish_ahead, now=now)


deliveries = typer.Typer(no_args_is_help=True, help="Messages that did not reach a member.")
app.add_typer(deliveries, name="deliveries")
FAILED_SHOWN_MAX = 200


@deliveries.command("list")
def list_deliveries() -> None:
    """Show what was refused or given up, the newest first."""
    asyncio.run(show_failed(read_settings()))


@deliveries.command("retry")
def retry_deliveries(
    ids: Annotated[
        list[UUID] | None, typer.Argument(help="Which; without any, all that were given up.")
    ] = None,
) -> None:
    """Have the worker try them again from the beginning."""
    count = asyncio.run(retry_failed(read_settings(), ids or None))
    console.print(f"{count} asked for; the worker tries them within seconds")


async def show_failed(settings: IdentitySettings) -> None:
    dsn = settings.database_url.get_secret_value()
    connection = await db.connect(dsn, name="identity-cli")
    try:
        failed = await notices.list_failed(connection, FAILED_SHOWN_MAX)
    finally:
        await connection.close(timeout=5)
    table = Table("id", "member", "channel", "status", "attempts", "ended at", "error")
    for each in failed:
        table.add_row(
            str(each["delivery_id"]),
            str(each["member_id"]),
            each["channel"],
            each["status"],
            str(each["attempts"]),
            each["ended_at"].isoformat(timespec="seconds"),
            each["last_error"],
        )
    console.print(table)


async def retry_failed(settings: IdentitySettings, ids: list[UUID] | None) -> int:
    dsn = settings.database_url.get_secret_value()
    connection = await db.connect(dsn, name="identity-cli")
    try:
        return await notices.retry_failed(connection, ids, utc_now())
    finally:
        await connection.close(timeout=5)


if __name__ == "__main__":
    app()
