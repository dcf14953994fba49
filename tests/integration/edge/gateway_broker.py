"""A real MQTT broker that knows logins, and gives each the rights that the gateway names: mosquitto
where it is installed, else amqtt. A login's password is its name, reversed."""

import asyncio
import getpass
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from access_world import until
from amqtt.broker import Broker
from amqtt.contexts import Action
from amqtt.plugins.base import BaseAuthPlugin, BaseTopicPlugin
from amqtt.session import Session

from copass_edge.gateway.rights import Rights, mosquitto_acl


class Logins(BaseAuthPlugin):
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
async def broker(port: int, rights: Rights, folder: Path) -> AsyncIterator[None]:
    if shutil.which("mosquitto") and shutil.which("mosquitto_passwd"):
        async with mosquitto(port, rights, folder):
            yield
        return
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


@asynccontextmanager
async def mosquitto(port: int, rights: Rights, folder: Path) -> AsyncIterator[None]:
    passwords, acl = folder / "passwords", folder / "acl"
    passwords.write_text("".join(f"{login}:{login[::-1]}\n" for login in rights))
    hashing = await asyncio.create_subprocess_exec("mosquitto_passwd", "-U", passwords)
    assert await hashing.wait() == 0
    acl.write_text(mosquitto_acl(rights))
    (folder / "mosquitto.conf").write_text(
        f"user {getpass.getuser()}\nlistener {port} 127.0.0.1\nallow_anonymous false\n"
        f"password_file {passwords}\nacl_file {acl}\n"
    )
    process = await asyncio.create_subprocess_exec(
        "mosquitto", "-c", folder / "mosquitto.conf", stderr=subprocess.DEVNULL
    )

    async def listens() -> bool:
        assert process.returncode is None, "mosquitto ended"
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True

    try:
        await until(listens)
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
