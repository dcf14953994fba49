"""`make test-faults` is a smoke of about 90 seconds; FULL=1 runs what is marked `whole` as well."""

import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get("FULL") == "1":
        return
    later = [
        item
        for item in items
        if item.path.is_relative_to(HERE) and item.get_closest_marker("whole")
    ]
    if later:
        config.hook.pytest_deselected(items=later)
        items[:] = [item for item in items if item not in set(later)]
