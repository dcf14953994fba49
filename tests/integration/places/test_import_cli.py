"""The import and export commands, as people run them, against a real PostgreSQL."""

import asyncio
import csv
import io
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from places_world import NOW
from typer.testing import CliRunner

from common import db
from places import store
from places.__main__ import app
from places.domain.place import Details
from places.importing.run import AlreadyRunning, Counts, import_places, to_city, to_no_city

UNIT_DATA = Path(__file__).parents[2] / "unit" / "places" / "data"
CGET = UNIT_DATA / "tiers_lieux_cget_2019_sample.csv"
FRANCE_SERVICES = UNIT_DATA / "france_services_2022-12_sample.csv"
STANDARD = UNIT_DATA / "standard-mediation-num_exemple-valide.csv"


@pytest.fixture
async def pool(dsn: str) -> AsyncIterator[db.Pool]:
    async with await db.create_pool(dsn, name="test", max_size=4) as pool:
        async with pool.acquire() as conn:
            for city in ("nantes", "lille"):
                await store.save_city(
                    conn, store.City(city, 1, city.title(), "Europe/Paris", "active")
                )
        yield pool


@pytest.fixture(autouse=True)
def environment(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "PLACES_DATABASE_URL": dsn,
        "PLACES_KAFKA_BOOTSTRAP": "127.0.0.1:1",
        "PLACES_TOKEN_ISSUER": "https://identity.test",
        "PLACES_JWKS_URL": "https://identity.test/jwks",
        "COLUMNS": "160",
    }.items():
        monkeypatch.setenv(name, value)


async def places(*arguments: str | Path) -> tuple[int, str, str]:
    """Run a command in this process, in a thread and so with an event loop of its own."""
    result = await asyncio.to_thread(CliRunner().invoke, app, [str(each) for each in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


async def state(pool: db.Pool) -> list[Any]:
    """Everything that an import may write."""
    return [
        await pool.fetch("SELECT place::text FROM place ORDER BY place_id"),
        await pool.fetch("SELECT outbox::text FROM outbox ORDER BY id"),
    ]


async def test_the_second_import_changes_nothing(pool: db.Pool, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    for file, rows, rejected in ((CGET, 9, 3), (FRANCE_SERVICES, 12, 2), (STANDARD, 1, 1)):
        arguments = ("import", file, "--city-by", "departement", "--report", report)
        code, out, err = await places(*arguments)
        assert code == 0, out + err
        assert f"{rows - rejected}/{rows - rejected}" in err or rows == rejected  # the bar is full
        first = json.loads(report.read_text(encoding="utf-8"))
        assert (first["rows"], first["rejected"]) == (rows, rejected)
        assert first["created"] == rows - rejected
        lines = {each["line"] for each in first["findings"] if each["level"] == "rejected"}
        assert len(lines) == rejected
        before = await state(pool)
        code, out, err = await places(*arguments)
        assert code == 0, out + err
        again = json.loads(report.read_text(encoding="utf-8"))
        assert (again["created"], again["updated"]) == (0, 0)
        assert again["unchanged"] == rows - rejected
        assert again["findings"] == first["findings"]
        assert await state(pool) == before


async def test_places_without_a_city_are_candidates_of_which_nobody_is_told(pool: db.Pool) -> None:
    assert (await places("import", CGET))[0] == 0
    assert await pool.fetchval("SELECT count(*) FROM place WHERE status = 'candidate'") == 6
    assert await pool.fetchval("SELECT count(*) FROM outbox") == 0
    # With a city they are taken into the network; others stay.
    code, out, err = await places("import", CGET, "--city-by", "commune")
    assert code == 0, out + err
    rows = await pool.fetch("SELECT city_id, status, version FROM place WHERE city_id IS NOT NULL")
    assert [tuple(row) for row in rows] == [("nantes", "in_network", 2)]
    assert await pool.fetchval("SELECT count(*) FROM outbox") == 1
    # A place that has a city is not moved to another one by an import.
    assert (await places("import", CGET, "--city", "lille"))[0] == 0
    found = await pool.fetch("SELECT city_id, count(*) FROM place GROUP BY 1 ORDER BY 1")
    assert [tuple(row) for row in found] == [("lille", 5), ("nantes", 1)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("none.csv",), "cannot be opened"),
        ((CGET, "--city", "atlantis"), "No active city 'atlantis'"),
        ((CGET, "--city", "nantes", "--city-by", "commune"), "exclude each other"),
        ((CGET, "--format", "france-services"), "lacks the columns"),
        ((CGET, "--format", "klingon"), "klingon"),
        ((CGET, "--report", "/nowhere/report.csv"), "no folder"),
        ((__file__,), "by its header"),
    ],
)
async def test_what_cannot_be_done_is_said_and_nothing_is_stored(
    pool: db.Pool, arguments: tuple[str | Path, ...], words: str
) -> None:
    code, out, err = await places("import", *arguments)
    assert code == 2
    assert words in " ".join((out + err).split())
    assert "Traceback" not in err
    assert await pool.fetchval("SELECT count(*) FROM place") == 0


async def test_a_dry_run_reports_and_stores_nothing(pool: db.Pool, tmp_path: Path) -> None:
    report = tmp_path / "report.csv"
    code, _out, _err = await places("import", CGET, "--dry-run", "--report", report)
    assert code == 0
    assert "malformed" in report.read_text(encoding="utf-8")
    assert await pool.fetchval("SELECT count(*) FROM place") == 0


def big_file(folder: Path, rows: int, *, hours: str = "Mo-Fr 09:00-12:00") -> Path:
    file = folder / "many.csv"
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(
        (
            "id",
            "pivot",
            "nom",
            "commune",
            "code_postal",
            "code_insee",
            "adresse",
            "date_maj",
            "horaires",
        )
    )
    for number in range(rows):
        writer.writerow(
            [number, "", f"Lieu {number}", "Nantes", "44000", "44109", "", "2026-01-01", hours]
        )
    file.write_text(text.getvalue(), encoding="utf-8")
    return file


async def test_killed_at_any_moment_and_run_again_it_converges(
    pool: db.Pool, tmp_path: Path
) -> None:
    file = big_file(tmp_path, 1500)
    for at_least in (1, 600):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "places", "import", str(file), "--city", "nantes"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        while process.returncode is None:
            if await pool.fetchval("SELECT count(*) FROM place") >= at_least:
                process.send_signal(signal.SIGKILL)
                break
            await asyncio.sleep(0.002)
        await process.wait()
        # Each place that is there is whole: its event is there too, once.
        stored = await pool.fetchval("SELECT count(*) FROM place")
        told = await pool.fetchval("SELECT count(DISTINCT key) FROM outbox")
        assert stored == told == await pool.fetchval("SELECT count(*) FROM outbox")
    code, out, err = await places("import", file, "--city", "nantes")
    assert code == 0, out + err
    assert await pool.fetchval("SELECT count(*) FROM place") == 1500
    assert await pool.fetchval("SELECT count(DISTINCT key) FROM outbox") == 1500
    assert await pool.fetchval("SELECT max(version) FROM place") == 1


async def test_only_what_the_source_changed_is_taken_over(pool: db.Pool) -> None:
    first = Details(
        name="Le Dix",
        profile="work_enterprise",
        postcode="44100",
        commune="Nantes",
        address="10 place des Garennes",
        opening_hours="Mo-Fr 09:00-12:00",
        source="s",
        external_id="1",
    )

    async def run(details: Details) -> Counts:
        return await import_places(
            pool, "s", [details], to_city("nantes"), lambda: NOW, lambda _count: None
        )

    assert await run(first) == Counts(created=1)
    # Somebody corrects the name here.
    await pool.execute("UPDATE place SET name = 'Le Dix, Chantenay', version = 2")
    changed = Details(**{**vars_of(first), "opening_hours": "Mo-Fr 10:00-12:00"})
    assert await run(changed) == Counts(updated=1)
    row = await pool.fetchrow("SELECT name, opening_hours, version FROM place")
    assert tuple(row) == ("Le Dix, Chantenay", "Mo-Fr 10:00-12:00", 3)
    assert await run(changed) == Counts(unchanged=1)
    # The source comes to say what is here already: noted, and no new version.
    assert await run(Details(**{**vars_of(changed), "name": "Le Dix, Chantenay"})) == Counts(
        unchanged=1
    )
    assert await pool.fetchval("SELECT version FROM place") == 3


def vars_of(details: Details) -> dict[str, Any]:
    return {name: getattr(details, name) for name in Details.__slots__}


async def test_two_imports_of_a_source_do_not_run_at_once(pool: db.Pool) -> None:
    async with pool.acquire() as holder:
        await holder.execute("SELECT pg_advisory_lock(7204, hashtext('s'))")
        with pytest.raises(AlreadyRunning):
            await import_places(pool, "s", [], to_no_city, lambda: NOW, lambda _count: None)
        await holder.execute("SELECT pg_advisory_unlock(7204, hashtext('s'))")


async def test_an_export_comes_back_as_it_was(pool: db.Pool, tmp_path: Path) -> None:
    moved = tmp_path / "moved.csv"
    moved.write_text(
        STANDARD.read_text(encoding="utf-8").replace('"43.52609","5.41423"', '"49.25","4.03"'),
        encoding="utf-8",
    )
    assert (await places("import", moved, "--city", "nantes"))[0] == 0
    before = await state(pool)
    exported = tmp_path / "export.csv"
    code, out, err = await places("export", exported)
    assert code == 0, out + err
    code, out, err = await places("import", exported, "--city", "nantes")
    assert code == 0, out + err
    assert "unchanged" in out
    assert await state(pool) == before


async def test_the_database_holds_what_the_code_promises(pool: db.Pool) -> None:
    """The same rules, once more, as constraints."""
    details = Details(
        name="Le Dix", profile="work_enterprise", postcode="44100", commune="Nantes",
        source="s", external_id="1",
    )  # fmt: skip
    await import_places(pool, "s", [details], to_no_city, lambda: NOW, lambda _count: None)
    for change in (
        "postcode = '441'",
        "profile = 'castle'",
        "status = 'in_network'",
        "city_id = 'nantes'",
        "latitude = 91, longitude = 0",
        "latitude = 47",
        "capacity = 0",
        "version = 0",
        "external_id = NULL",
        "insee_code = '00null'",
    ):
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await pool.execute(f"UPDATE place SET {change}")
