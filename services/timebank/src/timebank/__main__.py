"""`python -m timebank migrate | api | worker | verify-books | bundle | import | dead-letters`, and
what is done with a whole city: `rotate-key | lift-halt | export-city | import-city`."""

import asyncio
import gc
from collections import Counter
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress

from common import db
from common.cli import COLLECT_AFTER, console, service_cli
from common.clock import utc_now
from timebank import app, verify
from timebank.cities.cli import add_commands
from timebank.importing.layouts import UNITS, Layout, LayoutError, Unit, read_account_map
from timebank.importing.run import Source, import_file
from timebank.log import cli as log_cli
from timebank.log.bundle import Wanted, write_bundle
from timebank.service import LEDGER_SESSION
from timebank.settings import Settings, read_settings

MIGRATIONS = Path(__file__).parent / "migrations"

cli = service_cli(
    read_settings, api="timebank.app:create_app", worker=app.run, migrations=MIGRATIONS
)

add_commands(cli, read_settings)
log_cli.add_commands(cli, read_settings)


@cli.command("verify-books")
def verify_books() -> None:
    """Recompute every balance from the postings. Exit code 1 when anything differs."""
    settings = read_settings().for_app()
    reports = asyncio.run(verify.verify_books(settings.database_url.get_secret_value()))
    verify.show(reports, console)
    if not all(report.sound for report in reports):
        raise typer.Exit(1)


@cli.command("bundle")
def bundle_command(
    file: Annotated[Path, typer.Argument(dir_okay=False, help="Where to write it: a .zip")],
    city: Annotated[
        list[str] | None, typer.Option(help="Of which city, again for more; all by default.")
    ] = None,
    peer: Annotated[
        str | None, typer.Option("--with", help="Only what moved between them and this city.")
    ] = None,
    begin: Annotated[
        datetime | None, typer.Option("--from", help="An excerpt from then on, in UTC.")
    ] = None,
    end: Annotated[datetime | None, typer.Option("--until", help="To before then, in UTC.")] = None,
) -> None:
    """Write what the cities' logs say into a file that `copass-verify` checks without any server.
    Exit code 1 when a city has signed nothing yet."""
    dsn = read_settings().for_app().database_url.get_secret_value()
    period = [moment and moment.replace(tzinfo=UTC) for moment in (begin, end)]
    wanted = Wanted(tuple(city or ()), peer, *period)
    try:
        cities = asyncio.run(write_bundle(dsn, [], file, utc_now(), wanted))
    except LookupError as error:
        console.print(f"[red]{escape(str(error.args[0]))}[/red]")
        raise typer.Exit(1) from error
    console.print(f"{', '.join(cities)}: {escape(str(file))}")


@cli.command("import")
def import_command(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help=".csv or .jsonl")],
    city: Annotated[str, typer.Option(help="Whose book.")],
    source: Annotated[
        str, typer.Option(help="Where it comes from; a row is taken in once per source.")
    ],
    layout: Annotated[Layout, typer.Option()] = "copass",
    amount_in: Annotated[
        Unit | None, typer.Option(help="What amounts are in. Default: as the layout has it.")
    ] = None,
    accounts: Annotated[
        Path | None, typer.Option(exists=True, help="CSV id,account_id: whose account is which.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Default: FILE.report.jsonl")] = None,
) -> None:
    """Take in transfers, once each; after a failure, say the same again. Exit code 1 when a row
    was rejected."""
    report = report or file.with_name(f"{file.name}.report.jsonl")
    try:
        with accounts.open(encoding="utf-8-sig", newline="") if accounts else nullcontext() as text:
            known = read_account_map(text) if text else {}
        wanted = Source(source, city, layout, amount_in or UNITS[layout], known)
        counts = asyncio.run(run_import(read_settings().for_app(), wanted, file, report))
    except (LayoutError, UnicodeDecodeError) as error:
        console.print(f"[red]{escape(str(error))}[/red]")
        raise typer.Exit(2) from error
    console.print(
        f"{counts['posted']} posted, {counts['repeated']} there before,"
        f" {counts['rejected']} rejected: {escape(str(report))}"
    )
    if counts["rejected"]:
        raise typer.Exit(1)


async def run_import(settings: Settings, source: Source, file: Path, report: Path) -> Counter[str]:
    gc.set_threshold(COLLECT_AFTER)
    with file.open("rb") as lines:
        total = sum(1 for _ in lines)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    async with await db.create_pool(
        settings.database_url.get_secret_value(),
        name="timebank-import",
        max_size=2,
        settings=LEDGER_SESSION,
    ) as pool:
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("rows", total=total)
            counts = await import_file(
                pool, utc_now, source, file, report, lambda done: bar.advance(task, done)
            )
            bar.update(task, completed=total)
    return counts


if __name__ == "__main__":
    cli()
