"""The ledger's bench, as small as it can be: that it measures, not what."""

import io

import pytest
from rich.console import Console
from typer.testing import CliRunner

from copass.bench import ledger, ledger_rig
from copass.bench.ledger import Sizes, expect_transfers, measure_ledger
from copass.bench.ledger_rig import Book, Rig
from copass.bench.taps import BenchError
from timebank.__main__ import cli

TINY = Sizes(pairs=1, seconds=0.3, rows=2_400, postings=2_000, accounts=100, few_postings=200)


async def test_the_ledger_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "WARM_UP_S", 0.2)
    monkeypatch.setattr(ledger_rig, "PGBENCH_SCALE", 1)
    run = Rig.timebank

    def import_here(rig: Rig, url: str, *words: str) -> None:
        if words[0] != "import":
            return run(rig, url, *words)
        done = CliRunner().invoke(cli, words, env=rig.environment(url))
        assert done.exit_code == 0, done.output
        return None

    # A process takes far longer to start than to import so little.
    monkeypatch.setattr(Rig, "timebank", import_here)
    counted: list[int] = []

    async def count_and_check(book: Book, posted: int) -> None:
        counted.append(posted)
        await expect_transfers(book, posted)
        with pytest.raises(BenchError, match="are in the book"):
            await expect_transfers(book, posted + 1)

    monkeypatch.setattr(ledger, "expect_transfers", count_and_check)
    results = {one.name: one for one in await measure_ledger(TINY, Console(file=io.StringIO()))}
    assert set(results) == {
        "transfer_throughput",
        "transfer_bulk",
        "ledger_scale",
        "ledger_scale_import",
        "ledger_scale_postings",
    }
    assert all(one.value > 0 for one in results.values())
    assert results["ledger_scale_postings"].value == 2_000
    assert counted[0] > 0
