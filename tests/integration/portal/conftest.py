"""The portal in this process, and the small services of fake_network.py behind it."""

import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from portal.app import create_app

sys.path.insert(0, str(Path(__file__).parent))

from fake_network import EMAIL, PASSWORD, FakeNetwork, settings_of


@pytest.fixture
def network() -> FakeNetwork:
    fake = FakeNetwork()
    fake.me = {
        "member_id": str(uuid4()),
        "city_id": "nantes",
        "display_name": "Claire Démo",
        "roles": ["member"],
    }
    return fake


OpenPortal = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def open_portal(network: FakeNetwork) -> OpenPortal:
    @asynccontextmanager
    async def opened(**changes: Any) -> AsyncIterator[httpx.AsyncClient]:
        settings = settings_of(**changes)
        app = create_app(
            settings, transport=httpx.MockTransport(network.answer), clock=lambda: network.now
        )
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app, raise_app_exceptions=False),
                base_url=settings.public_url,
                headers={"accept-language": "en"},
            ) as client,
        ):
            yield client

    return opened


@pytest.fixture
async def visitor(open_portal: OpenPortal) -> AsyncIterator[httpx.AsyncClient]:
    """A browser of somebody who is not signed in."""
    async with open_portal() as client:
        yield client


def hidden_fields(page: httpx.Response) -> dict[str, str]:
    """The hidden fields of the form in the page's main part."""
    main = page.text.partition("<main")[2] or page.text
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', main))


Submit = Callable[..., Any]


@pytest.fixture
def submit() -> Submit:
    """Open a page with a form and send the form, as a browser does."""

    async def submitted(
        client: httpx.AsyncClient, page: str, /, to: str | None = None, **fields: str
    ) -> httpx.Response:
        shown = await client.get(page)
        assert shown.status_code == 200, shown.text
        return await client.post(
            to or page,
            data={**hidden_fields(shown), **fields},
            headers={"origin": str(client.base_url), "sec-fetch-site": "same-origin"},
        )

    return submitted


@pytest.fixture
async def member(visitor: httpx.AsyncClient, submit: Submit) -> httpx.AsyncClient:
    """A browser of a member who is signed in."""
    answer = await submit(visitor, "/sign-in", email=EMAIL, password=PASSWORD)
    assert answer.status_code == 303, answer.text
    return visitor


@pytest.fixture
def account(network: FakeNetwork) -> UUID:
    """The member's account, with 2 h 15 on it."""
    account_id = uuid4()
    network.accounts.append(
        {
            "account_id": str(account_id),
            "kind": "member",
            "balance_minutes": 135,
            "floor_minutes": -600,
            "status": "open",
        }
    )
    return account_id
