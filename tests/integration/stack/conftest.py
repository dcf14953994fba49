import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from copass_command import Copass, copass_in


@pytest.fixture
def copass(server_folder: Path) -> Iterator[Copass]:
    with copass_in(server_folder) as network:
        yield network
