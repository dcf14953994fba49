"""`copass-verify BUNDLE…`: verify evidence, from files or fetched from servers. Exit code 0 only if
all holds."""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from copass_verify.bundle import WrongBundle, open_bundle
from copass_verify.crossings import Fault
from copass_verify.excerpts import ExcerptReport
from copass_verify.notes import Verifier, WrongKey, parse_verifier
from copass_verify.online import NoAnswer, Server, check_live, is_address, parse_server
from copass_verify.verify import Progress, Report, verify

ASKED_WITH = "COPASS_TOKEN"
SHOWN = ("cities", "excerpts", "faults")
SHOWN_MAX = 20
REDRAW_S = 0.1
RATE_AFTER_S = 1.0


def key(text: str) -> Verifier:
    try:
        return parse_verifier(text)
    except WrongKey as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="copass-verify",
        description="Verify what cities' time banks say, without trusting any of their servers.",
        epilog=f"Exit code: 0 when all holds, 1 when anything does not, 2 for a wrong command."
        f" A server is asked with the token in {ASKED_WITH}, of an auditor or federation admin.",
    )
    parser.add_argument(
        "bundle",
        nargs="+",
        help="evidence bundles, and addresses of time banks (https://…), verified together",
    )
    parser.add_argument(
        "--key",
        action="append",
        default=[],
        type=key,
        help="a city's key known from elsewhere (name+id+key); else those of the bundles count",
    )
    parser.add_argument(
        "--cosigned", type=int, default=0, metavar="N", help="by how many cities, at least"
    )
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser.parse_args(arguments)


class ProgressLine:
    """One line of the terminal that is written over and over."""

    def __init__(self) -> None:
        self.began: dict[str, float] = {}
        self.next_at = 0.0

    def show(self, city: str, done: int, of: int) -> None:
        now = time.monotonic()
        began = self.began.setdefault(city, now)
        if now < self.next_at:
            return
        self.next_at = now + REDRAW_S
        share = f"{min(100, 100 * done // of)} % of {of:,}" if of else f"{done:,}"
        left = ""
        if now - began > RATE_AFTER_S and of >= done:
            left = f", {(of - done) * (now - began) / done:.0f} s left"
        sys.stderr.write(f"\r{city}: {share} entries{left}\033[K")
        sys.stderr.flush()


def no_progress(_city: str, _done: int, _of: int) -> None:
    return


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def words(fault: Fault) -> str:
    where = fault.city if fault.index is None else f"{fault.city} entry {fault.index}"
    return f"{where}{f' (transfer {fault.transfer})' if fault.transfer else ''}: {fault.what}"


def write_text(report: Report) -> None:
    for one in report.cities:
        cosigned = ", ".join(one.cosigned_by) or "nobody"
        say(
            f"{one.city}: {one.entries:,} entries, {one.accounts:,} accounts,"
            f" {one.checkpoints:,} checkpoints, the last cosigned by {cosigned};"
            f" {one.in_transit:,} on their way to others, {one.arrived:,} arrived"
        )
        for known in one.keys:
            say(f"  key {known}")
    for excerpt in report.excerpts:
        write_excerpt(excerpt)
    for fault in report.faults[:SHOWN_MAX]:
        say(f"WRONG {words(fault)}")
    rest = len(report.faults) - SHOWN_MAX + report.more
    if rest > 0:
        say(f"… and {rest:,} more")
    holds = "What the excerpts show holds." if report.excerpts else "All holds."
    say(holds if report.sound else "It does not hold.")


def write_excerpt(one: ExcerptReport) -> None:
    """What an excerpt proves, and what it cannot."""
    cosigned = ", ".join(one.cosigned_by) or "nobody"
    say(
        f"{one.city}, an excerpt: {one.entries:,} entries, each proven to be in the log of"
        f" {one.size:,} that it signed, the checkpoint cosigned by {cosigned}"
    )
    if one.without_gap:
        say(f"  from {one.first:,} to {one.last:,}: nothing between them was left out")
    for known in one.keys:
        say(f"  key {known}")
    gaps = "" if one.without_gap else ", nor that nothing was left out"
    say(f"  NOT proven by an excerpt: balances, floors, what was before{gaps}")


def as_json(report: Report) -> dict[str, Any]:
    told = {name: [asdict(one) for one in getattr(report, name)] for name in SHOWN}
    return {"sound": report.sound, **told, "more": report.more}


def gather(sources: Sequence[str], token: str | None, folder: Path) -> dict[Path, Server | None]:
    """The files to verify; those of servers are fetched first. Raises NoAnswer and OSError."""
    found: dict[Path, Server | None] = {}
    for number, source in enumerate(sources):
        if not is_address(source):
            found[Path(source)] = None
            continue
        server = parse_server(source, token)
        path = folder / f"{number}.zip"
        server.fetch(path)
        found[path] = server
    return found


def check(options: argparse.Namespace, folder: Path, progress: Progress) -> Report:
    """Raises WrongBundle, NoAnswer and OSError."""
    files = gather(options.bundle, os.environ.get(ASKED_WITH), folder)
    bundles = {path: open_bundle(path) for path in files}
    report = verify(
        list(bundles.values()),
        pinned=options.key,
        cosigners_min=options.cosigned,
        progress=progress,
        apart=True,
    )
    for path, server in files.items():
        if server is not None and report.trust is not None:
            last = {
                city: seen for (city, source), seen in report.last.items() if source == str(path)
            }
            for fault in check_live(server, bundles[path], last, report.trust):
                report.tell(fault)
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    loud = not options.quiet and not options.json and sys.stderr.isatty()
    try:
        with tempfile.TemporaryDirectory(prefix="copass-verify-") as folder:
            report = check(options, Path(folder), ProgressLine().show if loud else no_progress)
    except (WrongBundle, NoAnswer, OSError) as error:
        if options.json:
            say(json.dumps({"sound": False, "error": str(error)}))
        else:
            sys.stderr.write(f"{error}\n")
        return 1
    if loud:
        sys.stderr.write("\r\033[K")
    if options.json:
        say(json.dumps(as_json(report), indent=2))
    else:
        write_text(report)
    return 0 if report.sound else 1


if __name__ == "__main__":
    sys.exit(main())
