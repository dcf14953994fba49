"""A real MQTT broker that knows logins, and gives each the rights that the gateway names."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from amqtt.broker import Broker
from amqtt.contexts import Action
from amqtt.plugins.base import BaseAuthPlugin, BaseTopicPlugin
from amqtt.session import Session

Rights = dict[str, tuple[list[str], list[str]]]


class Logins(BaseAuthPlugin):
    """A login's password is its name, reversed."""

    async def authenticate(self, *, session: Session) -> bool:
        return bool(session.username) and session.password == str(session.username)[::-1]


class Topics(BaseTopicPlugin):
    @dataclass
    class Config:
        rights: Rights = field(default_factory=dict)

    async def topic_filtering(
        self,
        *,
        session: Session | None = None,
        topic: str | None = None,
        action: Action | None = None,
    ) -> bool:
        login = str(session.username) if session else ""
        reads, writes = self.config.rights.get(login, ([], []))
        return topic in (writes if action == Action.PUBLISH else reads)


@asynccontextmanager
async def broker(port: int, rights: Rights) -> AsyncIterator[None]:
    here = Logins.__module__
    running = Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
            "plugins": {f"{here}.Logins": {}, f"{here}.Topics": {"rights": rights}},
        }
    )
    await running.start()
    try:
        yield
    finally:
        await running.shutdown()
