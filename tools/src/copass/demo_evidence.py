"""The part of the story where nobody is believed: the books are fetched and verified."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from copass.demo_state import ADMIN
from copass.demo_story import Failed, Step
from copass_verify.bundle import open_bundle
from copass_verify.online import NoAnswer, parse_server
from copass_verify.verify import Report, verify

if TYPE_CHECKING:
    from copass.demo import Story

SIGNED_WITHIN_S = 20.0


@dataclass(frozen=True, slots=True)
class Findings:
    """`changed`: the city and the entry of which a copy had one amount changed; `named`: what the
    verifier said of the copy first."""

    honest: Report
    changed: tuple[str, int]
    named: tuple[str, int | None, str]
    milliseconds: int


async def evidence(story: Story) -> str:
    token = await story.api.token(ADMIN)
    found = await asyncio.to_thread(examine, story.api.url_of("timebank"), token)
    if not found.honest.sound:
        raise Failed(found.honest.faults[0].what)
    city, index, what = found.named
    if (city, index) != found.changed:
        raise Failed(f"{found.changed} was changed, and {city} {index} was named: {what}")
    entries = sum(one.entries for one in found.honest.cities)
    cities, checkpoints = (
        len(found.honest.cities),
        sum(one.checkpoints for one in found.honest.cities),
    )
    return story.say(
        f"copass-verify : {entries} écritures de {cities} cités, {checkpoints} signatures, sommes,"
        f" soldes et passages entre cités, tout tient ({found.milliseconds} ms). Dans une copie, un"
        f" montant changé d’une minute : désigné, {city}, écriture {index}",
        f"copass-verify: {entries} entries of {cities} cities, {checkpoints} signatures, sums,"
        f" balances and what crossed between cities, all of it holds ({found.milliseconds} ms)."
        f" In a copy, one amount changed by a minute: named, {city}, entry {index}",
    )


def examine(url: str, token: str) -> Findings:
    """Fetch, verify, and verify a copy in which one amount is another."""
    with tempfile.TemporaryDirectory(prefix="copass-demo-") as folder:
        path, copy = Path(folder) / "books.zip", Path(folder) / "copy.zip"
        fetch(url, token, path)
        started = time.perf_counter()
        honest = verify([open_bundle(path)])
        milliseconds = round((time.perf_counter() - started) * 1000)
        changed = change_one(path, copy)
        fault = verify([open_bundle(copy)]).faults[0]
        return Findings(honest, changed, (fault.city, fault.index, fault.what), milliseconds)


def fetch(url: str, token: str, to: Path) -> None:
    """Logs are signed some seconds after the first transfers. Raises Failed."""
    deadline = time.monotonic() + SIGNED_WITHIN_S
    while True:
        try:
            parse_server(url, token).fetch(to)
            return
        except NoAnswer as error:
            if time.monotonic() > deadline:
                raise Failed(str(error)) from error
            time.sleep(0.2)


def change_one(path: Path, copy: Path) -> tuple[str, int]:
    """Write a copy in which somebody got a minute more; the city and the entry."""
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w") as other:
        names = [one for one in archive.namelist() if one.endswith("/entries.jsonl")]
        chosen = max(names, key=lambda one: archive.getinfo(one).file_size)
        lines = archive.read(chosen).splitlines()
        index = len(lines) // 2
        entry = json.loads(lines[index])
        for line in entry["lines"]:
            line["minutes"] += 1 if line["minutes"] > 0 else -1
        lines[index] = json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()
        for name in archive.namelist():
            content = b"\n".join([*lines, b""]) if name == chosen else archive.read(name)
            other.writestr(name, content)
    return str(entry["city"]), index


EVIDENCE_STEPS = (Step({"fr": "Les livres, vérifiés", "en": "The books, verified"}, evidence),)
