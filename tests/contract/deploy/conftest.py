"""Finds the linters that the tests of this folder run."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def tool() -> Any:
    """The path of a program installed beside this Python, or on the PATH."""

    def find(name: str) -> str:
        found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
        assert found, f"{name} is missing: pip install -r requirements.lock"
        return found

    return find
