"""`python -m places import` and `export`, for people at a terminal and for scripts."""

import asyncio
import time
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import asyncpg
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from common import db
from common.clock import utc_now
from places import store
from places.domain.place import Details
from places.importing.export import write_export
from places.importing.files import Source, UnreadableFile, read_file
from places.importing.findings import write_report
from places.importing.run import (
    AlreadyRunning,
    Assign,
    Counts,
    by_commune,
    by_departement,
    import_places,
    to_city,
    to_no_city,
)
from places.settings import PlacesSettings

out = Console()
err = Console(stderr=True)

SHOWN_MAX = 15


class FormatName(StrEnum):
    AUTO = "auto"
    CGET = "cget"
    FRANCE_SERVICES = "france-services"
    STANDARD_MEDIATION = "standard-mediation"


class CityBy(StrEnum):
    COMMUNE = "commune"
    DEPARTEMENT = "departement"


class UnknownCity(Exception):
    """`--city` names no active city that this service has heard of."""


def import_command(
    file: Annotated[Path, typer.Argument(help="A CSV file, UTF-8.")],
    format_name: Annotated[
        FormatName, typer.Option("--format", help="How the file is laid out.")
    ] = FormatName.AUTO,
    city: Annotated[str | None, typer.Option(help="Give every place to this city.")] = None,
    city_by: Annotated[
        CityBy | None,
        typer.Option(
            help="Give each place to the city named as its commune, or as the main town of its"
            " département. Places that match no city stay candidates."
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Where to write what was found: .csv or .json.")
    ] = None,
    encoding: Annotated[str, typer.Option(help="Of the file.")] = "utf-8",
    dry_run: Annotated[bool, typer.Option(help="Read and report only.")] = False,
) -> None:
    """Import places of open data. Again and again: the same file changes nothing twice.

    Ends with 0 when the file was read to its end, also if rows were rejected; 2 when the file or
    an option is no good, with nothing imported; 1 when something failed on the way: run it again.
    """
    if city and city_by:
        stop("--city and --city-by exclude each other.")
    if report is not None and not report.parent.is_dir():
        stop(f"There is no folder {report.parent} for the report.")
    started = time.monotonic()
    try:
        source = read_file(file, format_name.value, encoding)
    except UnreadableFile as error:
        stop(f"{file}: {error}. Nothing was imported.")
    counts = Counts()
    if not dry_run:
        try:
            counts = asyncio.run(store_places(PlacesSettings(), source, city, city_by))
        except UnknownCity as error:
            stop(f"{error}. Nothing was imported.")
        except AlreadyRunning:
            stop(f"Another import of {source.layout.source} is at work.")
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            err.print(
                f"[red]Cut off by {type(error).__name__}[/red]: {error}. Whole batches were"
                " stored; run the same command again to complete them.",
                soft_wrap=True,
            )
            raise typer.Exit(1) from error
    summary = summarise(file, source, counts, time.monotonic() - started, dry_run=dry_run)
    if report is not None:
        try:
            write_report(report, summary, source.findings)
        except OSError as error:
            err.print(f"[red]The places are stored, the report is not[/red]: {error}")
            raise typer.Exit(1) from error
    show(summary, source, report)


def stop(message: str) -> None:
    err.print(f"[red]{message}[/red]", soft_wrap=True, highlight=False)
    raise typer.Exit(2)


async def store_places(
    settings: PlacesSettings, source: Source, city: str | None, city_by: CityBy | None
) -> Counts:
    pool = await db.create_pool(
        settings.database_url.get_secret_value(), name="places-import", max_size=2
    )
    async with pool:
        assign = await choose_assignment(pool, city, city_by)
        places: list[Details] = [details for _line, details in source.places]
        with Progress(
            TextColumn("[progress.description]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=err,
        ) as progress:
            task = progress.add_task(f"{source.layout.name}", total=len(places))
            return await import_places(
                pool,
                source.layout.source,
                places,
                assign,
                utc_now,
                lambda count: progress.advance(task, count),
            )


async def choose_assignment(pool: db.Pool, city: str | None, city_by: CityBy | None) -> Assign:
    async with pool.acquire() as conn:
        cities = [each.city_id for each in await store.active_cities(conn)]
    if city is not None:
        if city not in cities:
            raise UnknownCity(
                f"No active city {city!r} is known here. If it has just been founded, the worker"
                " may not have heard of it yet"
            )
        return to_city(city)
    if city_by is CityBy.COMMUNE:
        return by_commune(cities)
    if city_by is CityBy.DEPARTEMENT:
        return by_departement(cities)
    return to_no_city


def summarise(
    file: Path, source: Source, counts: Counts, seconds: float, *, dry_run: bool
) -> dict[str, object]:
    rejected = {finding.line for finding in source.findings if finding.level == "rejected"}
    return {
        "file": file.name,
        "format": source.layout.name,
        "dry_run": dry_run,
        "rows": source.rows,
        "rejected": len(rejected),
        "created": counts.created,
        "updated": counts.updated,
        "unchanged": counts.unchanged,
        "warnings": sum(finding.level == "warning" for finding in source.findings),
        "seconds": round(seconds, 2),
    }


def show(summary: dict[str, object], source: Source, report: Path | None) -> None:
    table = Table("", "", title="Import", show_header=False)
    for name, value in summary.items():
        table.add_row(name.replace("_", " "), str(value))
    out.print(table)
    kinds = Counter(
        (finding.level, finding.field, finding.code) for finding in source.findings
    ).most_common()
    if kinds:
        found = Table("level", "field", "code", "rows", title="What was found")
        for (level, field, code), count in kinds[:SHOWN_MAX]:
            found.add_row(level, field, code, str(count))
        out.print(found)
        if len(kinds) > SHOWN_MAX:
            out.print(f"… and {len(kinds) - SHOWN_MAX} more kinds")
    if report is not None:
        out.print(f"Every row is in {report}", soft_wrap=True)
    elif kinds:
        out.print("Add --report FILE.csv to see every row.")


def export_command(
    file: Annotated[Path, typer.Argument(help="Where to write.")],
    city: Annotated[str | None, typer.Option(help="Only places of this city.")] = None,
    source: Annotated[str | None, typer.Option(help="Only places of this source.")] = None,
) -> None:
    """Export places as a CSV table of the national schema."""
    try:
        count = asyncio.run(export_places(PlacesSettings(), file, city, source))
    except OSError as error:
        err.print(f"[red]Nothing was exported[/red]: {error}", soft_wrap=True)
        raise typer.Exit(1) from error
    out.print(f"{count} places in {file}", soft_wrap=True)


async def export_places(
    settings: PlacesSettings, file: Path, city: str | None, source: str | None
) -> int:
    connection = await db.connect(settings.database_url.get_secret_value(), name="places-export")
    try:
        places = await store.places_of_source(connection, source, city)
    finally:
        await connection.close(timeout=5)
    write_export(file, places)
    return len(places)
