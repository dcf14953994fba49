import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from seeded_network import SeededNetwork, seeded_network


@pytest.fixture(scope="module")
def network() -> Iterator[SeededNetwork]:
    with seeded_network() as running:
        yield running
