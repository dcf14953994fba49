"""Evidence of two real time banks, checked by copass-verify alone."""

import asyncio
import json
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from clearing_world import Federation, two_time_banks

from common.ids import new_id
from copass_verify.__main__ import main
from timebank.log import bundle, routes, service


@pytest.fixture
async def federation(
    make_database: Callable[[str, Path], Awaitable[str]],
) -> AsyncIterator[Federation]:
    async with two_time_banks(make_database) as made:
        await made.make_keys()
        await made.agree("nantes", "bourges")
        yield made


async def live_and_log(federation: Federation) -> None:
    """Minutes go to Bourges, some come back, a levy is taken, and all of it is signed."""
    await federation.send("anna", "nantes", "chloe", "bourges", 90)
    await federation.deliver()
    federation.bank("bourges").members["nobody"] = new_id()
    await federation.send("anna", "nantes", "nobody", "bourges", 30)
    await federation.deliver()
    await federation.send("chloe", "bourges", "anna", "nantes", 10)
    await federation.deliver()
    await log_all(federation)


async def log_all(federation: Federation) -> None:
    federation.clock.advance(minutes=10)
    for bank in federation.each:
        await service.work_once(bank.pool, federation.vault, federation.clock())


async def bundles(federation: Federation, folder: Path) -> list[str]:
    paths = []
    for number, bank in enumerate(federation.each):
        path = folder / f"{number}.zip"
        await bundle.write_bundle(bank.dsn, [], path, federation.clock())
        paths.append(str(path))
    return paths


async def test_what_two_time_banks_wrote_holds_together(
    federation: Federation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await live_and_log(federation)
    paths = await bundles(federation, tmp_path)
    capsys.readouterr()  # what was logged until here
    code = main(["--json", *paths])
    said = json.loads(capsys.readouterr().out)
    assert said["faults"] == []
    assert code == 0
    found = {each["city"]: each for each in said["cities"]}
    assert found["nantes"]["entries"] == 5  # two departures, their ends, an arrival
    assert found["bourges"]["entries"] == 3
    assert (found["nantes"]["arrived"], found["bourges"]["arrived"]) == (1, 1)
    assert found["nantes"]["messages"] > 0
    assert main([paths[0], "--quiet"]) == 0


async def test_evidence_of_personal_data_there_is_none(
    federation: Federation, tmp_path: Path
) -> None:
    await live_and_log(federation)
    for path, bank in zip(await bundles(federation, tmp_path), federation.each, strict=True):
        with zipfile.ZipFile(path) as archive:
            entries = b"".join(
                archive.read(name) for name in archive.namelist() if name.endswith("entries.jsonl")
            )
        assert entries
        for each in (*bank.members.values(), *bank.accounts.values()):
            assert str(each).encode() not in entries


async def test_an_arrival_that_the_other_city_hides_is_named(
    federation: Federation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bourges leaves it out of what it shows."""
    await federation.send("anna", "nantes", "chloe", "bourges", 90)
    await federation.deliver()
    await log_all(federation)
    paths = await bundles(federation, tmp_path)
    hide_arrival(Path(paths[1]), tmp_path / "hidden.zip")
    capsys.readouterr()
    code = main(["--json", paths[0], str(tmp_path / "hidden.zip")])
    said = json.loads(capsys.readouterr().out)
    assert code == 1
    assert [(fault["city"], fault["index"]) for fault in said["faults"]][:1] == [("bourges", 0)]


def hide_arrival(path: Path, to: Path) -> None:
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(to, "w") as other:
        for name in archive.namelist():
            content = archive.read(name)
            if name.endswith("entries.jsonl"):
                content = b"".join(
                    line for line in content.splitlines(True) if b'"arrival"' not in line
                )
            other.writestr(name, content)


async def test_the_bundle_of_a_city_that_signed_nothing_is_refused(
    federation: Federation, tmp_path: Path
) -> None:
    with pytest.raises(LookupError, match="brest"):
        await bundle.write_bundle(
            federation.bank("brest").dsn, ["brest"], tmp_path / "a.zip", federation.clock()
        )


async def test_an_excerpt_shows_a_pair_or_a_period_and_proves_each_entry(
    federation: Federation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await live_and_log(federation)
    between = federation.clock()
    await federation.send("anna", "nantes", "chloe", "bourges", 5)
    await federation.deliver()
    await log_all(federation)

    async def fetch(at: str, **query: str) -> tuple[Path, int]:
        answer = await federation.caller("paula", at, "auditor").get("log/bundle", **query)
        path = tmp_path / f"{at}-{len(query)}.zip"
        path.write_bytes(answer.content)
        return path, answer.status_code

    def check(*paths: Path) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = main(["--json", *map(str, paths)])
        return code, json.loads(capsys.readouterr().out)

    whole, _ = await fetch("nantes", city="nantes")
    assert check(whole)[0] == 0
    pair = [(await fetch(each, city=each, **{"with": other}))[0] for each, other in PAIRS]
    code, said = check(*pair, whole)
    assert (code, said["faults"]) == (0, [])
    nantes, bourges = said["excerpts"]
    assert (nantes["entries"], nantes["size"], nantes["without_gap"]) == (7, 7, True)
    assert bourges["entries"] == bourges["size"] == 4
    late, _ = await fetch("nantes", **{"city": "nantes", "from": between.isoformat()})
    code, said = check(late, pair[1])
    assert (code, said["excerpts"][0]["first"], said["excerpts"][0]["last"]) == (0, 5, 6)

    change(late, tmp_path / "changed.zip", b'"minutes":5', b'"minutes":6')
    code, said = check(tmp_path / "changed.zip")
    assert (code, said["faults"][0]["index"]) == (1, 5)
    assert "not proven to be in the log" in said["faults"][0]["what"]

    steward = federation.steward("nantes")
    assert (await steward.get("log/bundle", city="nantes")).status_code == 200
    assert (await steward.get("log/bundle")).status_code == 403
    assert (await steward.get("log/bundle", city="brest")).status_code == 404
    member = federation.caller("anna", "nantes")
    assert (await member.get("log/bundle", city="nantes")).status_code == 403
    assert (await fetch("nantes", city="nowhere"))[1] == 404

    # Who asks, and then takes nothing of it, keeps no others from theirs.
    app = federation.bank("nantes").app
    with pytest.MonkeyPatch.context() as sooner:
        sooner.setattr(routes, "BUNDLE_S", 0.3)
        stuck = [ask_and_take_nothing(app, steward.token) for _ in range(bundle.BUNDLES_MAX)]
        await asyncio.gather(*stuck)
    assert (await steward.get("log/bundle", city="nantes")).status_code == 200


async def ask_and_take_nothing(app: Any, token: str) -> None:
    async def stay() -> dict[str, Any]:
        return await asyncio.Future()

    async def take_nothing(message: dict[str, Any]) -> None:
        assert message["status"] == 200
        await asyncio.Event().wait()

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/v1/log/bundle",
        "raw_path": b"/v1/log/bundle",
        "query_string": b"city=nantes",
        "root_path": "",
        "headers": [(b"authorization", f"Bearer {token}".encode())],
        "client": ("127.0.0.1", 1),
        "server": ("timebank", 80),
    }
    await app(scope, stay, take_nothing)


PAIRS = (("nantes", "bourges"), ("bourges", "nantes"))


def change(path: Path, to: Path, old: bytes, new: bytes) -> None:
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(to, "w") as other:
        for name in archive.namelist():
            content = archive.read(name)
            if name.endswith("entries.jsonl"):
                assert old in content
                content = content.replace(old, new)
            other.writestr(name, content)
