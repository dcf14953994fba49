"""Audits over HTTP, in a time bank that keeps two cities and clears with a third elsewhere."""

import io
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import parse_qsl

import asyncpg
import httpx
import pyarrow.parquet as pq
import pytest
from bank_world import NOW, Caller
from clearing_world import two_time_banks

from timebank.log.service import work_once


async def ask(caller: Caller, path: str) -> httpx.Response:
    """GET below /v1/audit, with what stands behind the question mark."""
    path, _, query = path.partition("?")
    return await caller.get(f"audit/{path}", **dict(parse_qsl(query)))


async def test_an_auditor_sees_every_minute_between_cities_and_is_seen(
    make_database: Callable[[str, Path], Awaitable[str]],
) -> None:
    async with two_time_banks(make_database) as world:
        await world.make_keys()
        await world.agree("nantes", "bourges")
        await world.agree("nantes", "brest")
        sent = [await world.send("anna", "nantes", "chloe", "bourges", 90)]
        await world.deliver()
        world.clock.advance(hours=1)
        sent.append(await world.send("anna", "nantes", "chloe", "bourges", 45))  # not delivered
        back = await world.send("denis", "brest", "anna", "nantes", 30)
        await world.collect()
        world.letters.clear()
        for bank in world.each:
            while await work_once(bank.pool, world.vault, world.clock()):
                pass
        auditor = world.caller("zoe", "nantes", "auditor")
        steward = world.steward("nantes")

        # In transit, with its age.
        world.clock.advance(days=2)
        waiting = (await ask(auditor, "in-transit?limit=1")).json()
        (first,) = waiting["items"]
        assert first["transfer_id"] == sent[1]["transfer_id"]
        assert (first["age_seconds"], first["overdue"]) == (2 * 86400, True)
        (second,) = (await ask(auditor, f"in-transit?cursor={waiting['next']}")).json()["items"]
        assert second["transfer_id"] == back["transfer_id"]
        own = (await ask(steward, "in-transit")).json()["items"]
        assert [one["transfer_id"] for one in own] == [sent[1]["transfer_id"]]

        # The statement of a pair: what was there, what moved, what is there.
        pair = "city_id=nantes&peer_city_id=bourges"
        statement = (await ask(steward, f"statement?{pair}")).json()
        assert statement["opening"]["balance_minutes"] == 0
        assert statement["closing"]["balance_minutes"] == 90
        assert statement["closing"]["in_transit_minutes"] == 45
        (line,) = statement["items"]
        assert (line["minutes"], line["kind"]) == (90, "settlement")
        assert line["clearing_id"] == sent[0]["transfer_id"]
        assert line["log_index"] is not None
        later = NOW.isoformat().replace("+00:00", "Z")
        before = await ask(steward, f"statement?{pair}&from=2026-01-01T00:00:00Z&until={later}")
        assert before.json()["items"] == []

        # What looks odd says why.
        odd = (await ask(auditor, "anomalies")).json()
        assert odd["crossings"] == 3
        assert {one["rule"] for one in odd["items"]} == {"overdue"}
        assert "45 minutes" in " ".join(one["reason"] for one in odd["items"])
        assert {"ring", "unusual_size"} <= {one["rule"] for one in odd["rules"]}

        # Exports carry the checkpoints that their rows are told by.
        for table, rows in (("crossings", 3), ("positions", 3), ("in-transit", 2), ("looks", 7)):
            answer = await ask(auditor, f"exports/{table}?format=parquet")
            assert answer.status_code == 200, answer.text
            archive = zipfile.ZipFile(io.BytesIO(answer.content))
            assert "checkpoints/nantes.txt" in archive.namelist()
            assert pq.read_table(io.BytesIO(archive.read(f"{table}.parquet"))).num_rows == rows
        as_csv = await ask(steward, f"exports/statement?{pair}")
        content = zipfile.ZipFile(io.BytesIO(as_csv.content)).read("statement.csv").decode()
        assert sent[0]["transfer_id"] in content
        missing = await ask(auditor, "exports/statement?city_id=nantes")
        assert (missing.status_code, missing.json()["errors"][0]["field"]) == (
            422,
            "query.peer_city_id",
        )

        # Who looked: the auditor's own questions, for the city that they were about, and for all.
        looks = (await ask(auditor, "looks?limit=200")).json()["items"]
        assert looks[0]["path"] == "/v1/audit/looks"
        assert {look["role"] for look in looks} == {"auditor"}
        assert "/v1/audit/exports/crossings" in {look["path"] for look in looks}
        theirs = (await ask(world.steward("brest"), "looks?limit=200")).json()["items"]
        assert {look["city_id"] for look in theirs} == {None}
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await world.bank("nantes").pool.execute("DELETE FROM audit_look")

        # Nor is there a way to look unseen.
        for path in ("nettings", "nettings/possible", "reconciliation", "books/nantes"):
            assert (await auditor.get(path)).status_code == 200
        too_early = await ask(auditor, "anomalies?until=0001-01-01T00:00:00Z")
        assert too_early.json()["errors"][0]["field"] == "query.until"
        looks = (await ask(auditor, "looks?limit=6")).json()["items"]
        assert {"/v1/nettings", "/v1/nettings/possible", "/v1/reconciliation"} <= {
            look["path"] for look in looks
        }

        # Who may not.
        nobody = world.caller("anna", "nantes")
        for path in ("in-transit", "anomalies", "looks", "statement", "exports/positions"):
            assert (await ask(nobody, f"{path}?{pair}")).status_code == 403
            assert (await ask(world.steward("brest"), f"{path}?{pair}")).status_code == 404
        for wrong in (
            "from=2026-12-01T00:00:00Z",
            "from=2020-01-01T00:00:00Z",
            "from=2026-11-02T00:00:00Z&until=2026-11-01T00:00:00Z",
            "from=0001-01-01T00:00:00Z&until=0001-01-02T00:00:00Z",
            "from=0001-01-01T00:00:00%2B14:00",
        ):
            refused = await ask(auditor, f"anomalies?{wrong}")
            assert (refused.status_code, refused.json()["errors"][0]["field"]) == (
                422,
                "query.from",
            )
