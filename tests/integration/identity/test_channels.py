"""E-mail through a real SMTP server, and web push to a service that reads it as a browser would."""

import asyncio
import base64
import datetime as dt
import ipaddress
import json
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from identity_network import TestClock, make_settings, running

from common.ids import new_id
from identity.app import MIGRATIONS
from identity.notices import service, store
from identity.notices.channels import Mail, read_sender, read_smtp_url
from identity.notices.domain import (
    Away,
    Gone,
    Letter,
    Notice,
    Preferences,
    Refused,
    Sent,
    Subscription,
)
from identity.notices.push import PublicInternet, WebPush, to_point
from identity.notices.sender import send_due
from identity.vault import Vault, to_base64url

NOW = dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC)
PASSWORD = "an invented mail password"


@dataclass(frozen=True)
class Certificate:
    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """For 127.0.0.1 and push.example, trusted by `client` alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    start = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    names: list[x509.GeneralName] = [
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.DNSName("push.example"),
    ]
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=3))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "pair.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(private + signed.public_bytes(Encoding.PEM))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    client = ssl.create_default_context(cadata=signed.public_bytes(Encoding.PEM).decode())
    return Certificate(server, client)


# E-mail


@dataclass
class Post:
    """What an SMTP server took, and what it says to whom."""

    taken: list[tuple[str, list[str], bytes]] = field(default_factory=list)
    rcpt: str = "250 OK"
    data: str = "250 taken"
    users: list[str] = field(default_factory=list)
    secure: list[bool] = field(default_factory=list)

    async def handle_RCPT(
        self, server: Any, session: Any, envelope: Any, address: str, options: Any
    ) -> str:
        if self.rcpt.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.rcpt

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.data.startswith("250"):
            self.secure.append(session.ssl is not None)
            self.taken.append((envelope.mail_from, envelope.rcpt_tos, envelope.content))
        return self.data

    def check(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> Any:
        assert isinstance(data, LoginPassword)
        self.users.append(data.login.decode())
        return AuthResult(success=data.password.decode() == PASSWORD, handled=False)


@contextmanager
def smtp_server(post: Post, **more: Any) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    controller = Controller(post, hostname="127.0.0.1", port=port, **more)
    controller.start()
    try:
        yield port
    finally:
        controller.stop()


def make_mail(url: str, **more: Any) -> Mail:
    return Mail(
        read_smtp_url(url),
        password=more.pop("password", PASSWORD),
        sender=read_sender("Copass <rien@copass.example>"),
        portal_url="https://p.example",
        timeout_s=5,
        **more,
    )


def make_letter(**more: Any) -> Letter:
    notice = Notice(uuid4(), uuid4(), "transfer.received", {"minutes": 90}, NOW)
    letter = Letter(uuid4(), "fr", (notice,), "ana@exemple.invalid", None, NOW)
    return replace(letter, **more)


async def test_an_email_arrives_as_it_was_meant() -> None:
    post, letter = Post(), make_letter()
    with smtp_server(post) as port:
        assert await make_mail(f"smtp://127.0.0.1:{port}").send(letter) == Sent()
    ((sender, recipients, content),) = post.taken
    assert (sender, recipients) == ("rien@copass.example", ["ana@exemple.invalid"])
    message = message_from_bytes(content, policy=policy.default)
    assert message["Subject"] == "Copass : Vous avez reçu du temps."
    assert message["Message-ID"] == f"<{letter.delivery_id}@copass.example>"
    assert message["To"] == "ana@exemple.invalid"
    assert "Vous avez reçu 1 h 30." in message.get_content()
    assert not message.defects


async def test_a_message_sent_again_is_known_by_its_message_id() -> None:
    post, letter = Post(), make_letter()
    with smtp_server(post) as port:
        mail = make_mail(f"smtp://127.0.0.1:{port}")
        await mail.send(letter)
        await mail.send(replace(letter, now=NOW + dt.timedelta(minutes=5)))
    ids = {message_from_bytes(content)["Message-ID"] for _, _, content in post.taken}
    assert len(post.taken) == 2
    assert len(ids) == 1


@pytest.mark.parametrize("security", ["smtps", "smtp+starttls"])
async def test_a_password_goes_over_tls_alone(certificate: Certificate, security: str) -> None:
    post = Post()
    tls: dict[str, Any] = {"authenticator": post.check}
    if security == "smtps":
        # aiosmtpd takes STARTTLS alone for TLS, so it must not insist on it here.
        tls |= {"ssl_context": certificate.server, "auth_require_tls": False}
    else:
        tls |= {
            "tls_context": certificate.server,
            "require_starttls": True,
            "auth_required": True,
        }
    with smtp_server(post, **tls) as port:
        url = f"{security}://me%40copass.example@127.0.0.1:{port}"
        assert await make_mail(url, tls=certificate.client).send(make_letter()) == Sent()
        wrong = make_mail(url, tls=certificate.client, password="no")
        assert await wrong.send(make_letter()) == Away("smtp_535")  # ours to mend, then sent
        # A server that nobody vouches for gets neither password nor message.
        outcome = await make_mail(url).send(make_letter())
    assert isinstance(outcome, Away)
    assert set(post.users) == {"me@copass.example"}
    assert len(post.taken) == 1


async def test_a_server_without_starttls_gets_nothing_when_it_was_asked_for() -> None:
    post = Post()
    with smtp_server(post) as port:
        outcome = await make_mail(f"smtp+starttls://127.0.0.1:{port}").send(make_letter())
    assert isinstance(outcome, Away)
    assert post.taken == []


@pytest.mark.parametrize(
    ("rcpt", "data", "expected"),
    [
        ("550 5.1.1 no such user ana@exemple.invalid", "250 ok", Refused("smtp_550")),
        ("450 4.2.1 mailbox busy", "250 ok", Away("smtp_450")),
        ("250 ok", "554 5.7.1 looks like spam", Refused("smtp_554")),
        ("250 ok", "451 4.3.0 try later", Away("smtp_451")),
    ],
)
async def test_what_the_server_says_decides_whether_to_try_again(
    rcpt: str, data: str, expected: Any
) -> None:
    post = Post(rcpt=rcpt, data=data)
    with smtp_server(post) as port:
        assert await make_mail(f"smtp://127.0.0.1:{port}").send(make_letter()) == expected
    assert post.taken == []


async def test_a_server_that_is_away_silent_or_no_mail_server_is_asked_later(
    unused_port: int,
) -> None:
    outcome = await make_mail(f"smtp://127.0.0.1:{unused_port}").send(make_letter())
    assert isinstance(outcome, Away)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    for behaviour in (silent, other):
        server = await asyncio.start_server(behaviour, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        mail = make_mail(f"smtp://127.0.0.1:{port}")
        mail._timeout_s = 0.5
        assert isinstance(await mail.send(make_letter()), Away)
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(
    "address",
    [
        "ana@exemple.invalid\r\nBcc: mallory@exemple.invalid",
        "ana@exemple.invalid>\r\nRCPT TO:<mallory@exemple.invalid",
        "ana@exemple.invalid, mallory@exemple.invalid",
        "ana@exemple.invalid\n\nA body",
        "",
        None,
    ],
)
async def test_no_address_carries_a_header_or_a_command(address: str | None) -> None:
    post = Post()
    with smtp_server(post) as port:
        mail = make_mail(f"smtp://127.0.0.1:{port}")
        assert await mail.send(make_letter(email=address)) == Refused("address_malformed")
    assert post.taken == []


async def test_what_a_notice_says_of_itself_carries_no_header() -> None:
    post = Post()
    evil = "x\r\nBcc: mallory@exemple.invalid\r\n\r\nbody"
    notice = Notice(uuid4(), uuid4(), evil, {"minutes": evil, "note": evil, evil: 1}, NOW)
    with smtp_server(post) as port:
        sent = await make_mail(f"smtp://127.0.0.1:{port}").send(make_letter(notices=(notice,)))
    assert sent == Sent()
    ((_, recipients, content),) = post.taken
    assert recipients == ["ana@exemple.invalid"]
    assert b"mallory" not in content


async def test_from_a_notice_to_the_mailbox_and_the_server_away_at_first(
    make_database: Callable[[str, Path], Awaitable[str]], clock: TestClock
) -> None:
    dsn = await make_database("identity", MIGRATIONS)
    async with running(make_settings(dsn), clock) as network:
        await network.city("nantes")
        me = await network.member("nantes", email="ana@exemple.invalid")
        member_id = UUID(me["member_id"])
        await store.save_preferences(network.conn, member_id, Preferences(email="each"))
        notice = Notice(new_id(), member_id, "exchange.agreed", {}, clock())
        async with network.conn.transaction():
            await service.take_in(network.conn, notice, email_on=True, push_on=True, now=clock())
        pool, post = network.context.pool, Post()
        with smtp_server(post) as port:
            pass  # the server was there, and is away now
        mail = make_mail(f"smtp://127.0.0.1:{port}")
        await send_due(pool, {"email": mail}, clock)
        clock.advance(seconds=61)
        with smtp_server(post) as port:
            await send_due(pool, {"email": make_mail(f"smtp://127.0.0.1:{port}")}, clock)
    ((_, recipients, content),) = post.taken
    assert recipients == ["ana@exemple.invalid"]
    assert b"accept" in content


# Web push


@dataclass
class Browser:
    """A browser: its keys, and how it reads what was sealed for it (RFC 8291, the other side)."""

    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    auth: bytes = b"sixteen bytes ok"

    def subscription(self, endpoint: str) -> Subscription:
        point = to_point(self.key.public_key())
        return Subscription(uuid4(), uuid4(), endpoint, point, self.auth, NOW)

    def read(self, body: bytes) -> bytes:
        salt = body[:16]
        _size, length = struct.unpack("!LB", body[16:21])
        point, sealed = body[21 : 21 + length], body[21 + length :]

        def derive(size: int, salt: bytes, ikm: bytes, info: bytes) -> bytes:
            return HKDF(algorithm=SHA256(), length=size, salt=salt, info=info).derive(ikm)

        server = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
        info = b"WebPush: info\x00" + to_point(self.key.public_key()) + point
        ikm = derive(32, self.auth, self.key.exchange(ec.ECDH(), server), info)
        key = derive(16, salt, ikm, b"Content-Encoding: aes128gcm\x00")
        nonce = derive(12, salt, ikm, b"Content-Encoding: nonce\x00")
        opened = AESGCM(key).decrypt(nonce, sealed, None)
        assert opened.rstrip(b"\x00")[-1:] == b"\x02"
        return opened.rstrip(b"\x00")[:-1]


@dataclass
class PushService:
    """Takes messages and answers as it is told."""

    status: str = "201 Created"
    headers: str = ""
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    port: int = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        except asyncio.IncompleteReadError:
            writer.close()
            return
        lines = head.split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines[1:] if line)
        }
        body = await reader.readexactly(int(headers["content-length"]))
        self.requests.append((lines[0], headers, body))
        writer.write(
            f"HTTP/1.1 {self.status}\r\n{self.headers}Content-Length: 0\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        await writer.drain()
        writer.close()


@asynccontextmanager
async def push_service(certificate: Certificate, service: PushService) -> Any:
    server = await asyncio.start_server(service.answer, "127.0.0.1", 0, ssl=certificate.server)
    service.port = server.sockets[0].getsockname()[1]
    try:
        yield f"https://push.example:{service.port}/send/abc"
    finally:
        server.close()
        await server.wait_closed()


async def here(_host: str, _port: int) -> list[str]:
    return ["127.0.0.1"]


@asynccontextmanager
async def web_push(certificate: Certificate, *, allowed: tuple[str, ...]) -> Any:
    push = WebPush(
        Vault("key secret " * 4).push_key,
        "mailto:tech@copass.example",
        network=PublicInternet(allowed=allowed, resolve=here),
        tls=certificate.client,
    )
    try:
        yield push
    finally:
        await push.close()


async def test_a_browser_reads_what_it_was_sent_and_the_service_knows_who_sent_it(
    certificate: Certificate,
) -> None:
    browser, taken = Browser(), PushService()
    async with (
        push_service(certificate, taken) as endpoint,
        web_push(certificate, allowed=("127.0.0.1",)) as push,
    ):
        letter = make_letter(subscription=browser.subscription(endpoint))
        assert await push.send(letter) == Sent()
        assert await push.send(letter) == Sent()
    (line, headers, body), (_, _, again) = taken.requests
    assert line == "POST /send/abc HTTP/1.1"
    assert json.loads(browser.read(body)) == {
        "notice_id": str(letter.notices[0].notice_id),
        "kind": "transfer.received",
        "text": "Vous avez reçu 1 h 30.",
        "language": "fr",
    }
    assert b"transfer" not in body
    assert body[:86] != again[:86]  # a fresh key and salt each time
    assert (headers["content-encoding"], headers["ttl"]) == ("aes128gcm", "86400")
    token = headers["authorization"].split("t=")[1].split(",")[0]
    public = headers["authorization"].split("k=")[1]
    point = base64.urlsafe_b64decode(public + "=" * (-len(public) % 4))
    known_as = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    claims = jwt.decode(
        token,
        known_as,
        ["ES256"],
        audience=f"https://push.example:{taken.port}",
        options={"verify_exp": False},
    )
    assert claims["sub"] == "mailto:tech@copass.example"
    assert to_base64url(point) == public


async def test_a_browser_reads_nothing_that_was_changed_or_sent_to_another(
    certificate: Certificate,
) -> None:
    browser, taken = Browser(), PushService()
    async with (
        push_service(certificate, taken) as endpoint,
        web_push(certificate, allowed=("127.0.0.1",)) as push,
    ):
        await push.send(make_letter(subscription=browser.subscription(endpoint)))
    body = bytearray(taken.requests[0][2])
    body[-1] ^= 1
    with pytest.raises(Exception, match=r"^$"):
        browser.read(bytes(body))


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        ("410 Gone", "", Gone()),
        ("404 Not Found", "", Gone()),
        ("413 Too Large", "", Refused("http_413")),
        ("301 Moved", "Location: http://127.0.0.1:1/\r\n", Refused("http_301")),
        ("429 Slow", "Retry-After: 90\r\n", Away("http_429", dt.timedelta(seconds=90))),
        ("503 Away", "", Away("http_503")),
    ],
)
async def test_the_answer_of_the_push_service_decides(
    certificate: Certificate, status: str, headers: str, expected: Any
) -> None:
    taken = PushService(status=status, headers=headers)
    async with (
        push_service(certificate, taken) as endpoint,
        web_push(certificate, allowed=("127.0.0.1",)) as push,
    ):
        letter = make_letter(subscription=Browser().subscription(endpoint))
        assert await push.send(letter) == expected


async def test_a_name_that_leads_inside_is_not_followed(certificate: Certificate) -> None:
    """`push.example` resolves to 127.0.0.1 when the message is about to leave."""
    taken = PushService()
    async with (
        push_service(certificate, taken) as endpoint,
        web_push(certificate, allowed=()) as push,
    ):
        letter = make_letter(subscription=Browser().subscription(endpoint))
        assert await push.send(letter) == Refused("address_not_public")
    assert taken.requests == []


async def test_a_push_service_that_is_away_or_a_stranger_is_asked_later(
    certificate: Certificate, unused_port: int
) -> None:
    gone = Browser().subscription(f"https://push.example:{unused_port}/a")
    stranger = PushService()
    async with (
        push_service(certificate, stranger) as endpoint,
        web_push(certificate, allowed=("127.0.0.1",)) as push,
    ):
        assert isinstance(await push.send(make_letter(subscription=gone)), Away)
        other_name = endpoint.replace("push.example", "other.example")
        letter = make_letter(subscription=Browser().subscription(other_name))
        assert isinstance(await push.send(letter), Away)  # not its certificate
    assert stranger.requests == []


async def test_a_browser_that_is_gone_is_forgotten(
    make_database: Callable[[str, Path], Awaitable[str]],
    clock: TestClock,
    certificate: Certificate,
) -> None:
    dsn = await make_database("identity", MIGRATIONS)
    taken = PushService(status="410 Gone")
    async with (
        running(make_settings(dsn), clock) as network,
        push_service(certificate, taken) as endpoint,
        web_push(certificate, allowed=("127.0.0.1",)) as push,
    ):
        await network.city("nantes")
        member_id = UUID((await network.member("nantes"))["member_id"])
        subscription = replace(Browser().subscription(endpoint), member_id=member_id)
        await service.subscribe(network.conn, subscription)
        for _ in range(2):
            notice = Notice(new_id(), member_id, "exchange.agreed", {}, clock())
            await service.take_in(network.conn, notice, email_on=True, push_on=True, now=clock())
        await send_due(network.context.pool, {"push": push}, clock)
        assert await store.list_subscriptions(network.conn, member_id) == []
        assert await network.conn.fetchval("SELECT count(*) FROM notification_delivery") == 0
        assert await network.conn.fetchval("SELECT count(*) FROM notice") == 2
