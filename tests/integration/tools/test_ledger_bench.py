"""The ledger's bench, as small as it can be: that it measures, not what."""

import io

import pytest
from rich.console import Console

from copass.bench import ledger
from copass.bench.ledger import Sizes, expect_transfers, measure_ledger
from copass.bench.ledger_rig import Book
from copass.bench.taps import BenchError

TINY = Sizes(pairs=1, seconds=1, rows=2_400, postings=2_000, accounts=100, few_postings=200)


async def test_the_ledger_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "WARM_UP_S", 0.2)
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
