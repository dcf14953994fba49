import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from identity.app import MIGRATIONS
from identity.settings import IdentitySettings

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "support"))

from identity_network import Network, TestClock, make_settings, running


@pytest.fixture(autouse=True)
def cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of logins: their cost is tested once, in tests/unit."""
    monkeypatch.setattr("identity.passwords.TIME_COST", 1)
    monkeypatch.setattr("identity.passwords.MEMORY_KIB", 64)


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


@pytest.fixture
async def settings(make_database: Callable[[str, Path], Awaitable[str]]) -> IdentitySettings:
    return make_settings(await make_database("identity", MIGRATIONS))


@pytest.fixture
async def network(settings: IdentitySettings, clock: TestClock) -> AsyncIterator[Network]:
    async with running(settings, clock) as network:
        yield network
