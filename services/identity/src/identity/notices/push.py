"""Web push: messages that only the browser can read, sent by somebody the push service knows.

RFC 8291 (encryption), RFC 8188 (aes128gcm), RFC 8292 (VAPID), RFC 8030 (the push service).
"""

import asyncio
import ipaddress
import os
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import httpcore
import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from identity.notices.domain import Away, Gone, Letter, Outcome, Refused, Sent
from identity.notices.texts import discreet_sentence
from identity.vault import to_base64url

RECORD_BYTES = 4096
POINT_BYTES = 65
AUTH_BYTES = 16
SALT_BYTES = 16
# What is left of one record after header, padding delimiter and tag.
PAYLOAD_BYTES_MAX = RECORD_BYTES - (SALT_BYTES + 4 + 1 + POINT_BYTES) - 1 - 16
ENDPOINT_LENGTH_MAX = 1000
HTTPS_PORT = 443
SEND_TIMEOUT_S = 15
TOKEN_LIFETIME = timedelta(hours=12)
# How long the push service keeps it for a browser that is off.
MESSAGE_LIFETIME = timedelta(days=1)
RETRY_AFTER_MAX_S = 24 * 3600

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[list[str]]]

# What older Pythons call global: protocol assignments, relays, and the ways of writing an IPv4
# address inside an IPv6 one that a gateway may translate.
NOT_PUBLIC = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("192.0.0.0/24", "192.88.99.0/24"),
        *("64:ff9b::/96", "64:ff9b:1::/48", "::/96", "2001::/23", "2002::/16"),
    )
)


class Malformed(ValueError):
    """A subscription that no browser gave. `field`: endpoint, p256dh or auth."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def read_endpoint(endpoint: str) -> str:
    """Raises Malformed unless it is https to a host with a name, without port, user or fragment."""
    try:
        parts = urlsplit(endpoint)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise Malformed("endpoint", "the address is malformed") from error
    if any(not "!" <= character <= "~" for character in endpoint):
        raise Malformed("endpoint", "the address has spaces or characters outside ASCII")
    if parts.scheme != "https":
        raise Malformed("endpoint", "the address must begin with https://")
    if port not in (None, HTTPS_PORT) or parts.username is not None or "#" in endpoint:
        raise Malformed("endpoint", "the address must have no port, user or fragment")
    labels = host.removesuffix(".").split(".")
    if len(labels) < 2 or not labels[-1].isascii() or not labels[-1][:1].isalpha():
        raise Malformed("endpoint", "the address must name a host on the internet")
    return endpoint


def read_keys(p256dh: bytes, auth: bytes) -> None:
    """Raises Malformed unless they are an uncompressed point of P-256 and 16 bytes."""
    try:
        if len(p256dh) != POINT_BYTES:
            raise Malformed("p256dh", "the key must have 65 bytes")
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), p256dh)
    except ValueError as error:
        raise Malformed("p256dh", "the key is no point of P-256") from error
    if len(auth) != AUTH_BYTES:
        raise Malformed("auth", "the secret must have 16 bytes")


def to_point(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def derive(length: int, *, salt: bytes, ikm: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=info).derive(ikm)


def encrypt(
    payload: bytes,
    *,
    p256dh: bytes,
    auth: bytes,
    own_key: ec.EllipticCurvePrivateKey,
    salt: bytes,
) -> bytes:
    """One aes128gcm record for the browser with these keys; `own_key` and `salt` serve once.

    Raises ValueError for a payload over PAYLOAD_BYTES_MAX.
    """
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise ValueError("the message is too large for web push")
    browser = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), p256dh)
    own_point = to_point(own_key.public_key())
    ikm = derive(
        32,
        salt=auth,
        ikm=own_key.exchange(ec.ECDH(), browser),
        info=b"WebPush: info\x00" + p256dh + own_point,
    )
    key = derive(16, salt=salt, ikm=ikm, info=b"Content-Encoding: aes128gcm\x00")
    nonce = derive(12, salt=salt, ikm=ikm, info=b"Content-Encoding: nonce\x00")
    # 2 marks the end of the last record.
    sealed = AESGCM(key).encrypt(nonce, payload + b"\x02", b"")
    return salt + struct.pack("!LB", RECORD_BYTES, len(own_point)) + own_point + sealed


def authorization(
    endpoint: str, key: ec.EllipticCurvePrivateKey, *, contact: str, now: datetime
) -> str:
    """The VAPID header: a token for this push service alone, and the key that verifies it."""
    parts = urlsplit(endpoint)
    claims = {
        "aud": f"{parts.scheme}://{parts.netloc}",
        "exp": int((now + TOKEN_LIFETIME).timestamp()),
        "sub": contact,
    }
    token = jwt.encode(claims, key, algorithm="ES256")
    return f"vapid t={token}, k={to_base64url(to_point(key.public_key()))}"


class NotPublic(Exception):
    """A name that leads, now, to an address that is not of the open internet."""


def is_public(address: Address) -> bool:
    """Of the open internet: not private, loopback, link-local, reserved, multicast, translated."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address.is_site_local:
            return False
    if any(address in network for network in NOT_PUBLIC):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name, as the system knows them now."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in found))


class PublicInternet(httpcore.AsyncNetworkBackend):
    """Connects to public addresses only.

    The name is resolved here and the very address that was judged is connected to, so a name that
    changes its mind between the two gains nothing. One bad address among several refuses them all.
    `allowed` is for a push service of one's own, on whichever port.
    """

    def __init__(self, *, allowed: Iterable[str] = (), resolve: Resolve = resolve) -> None:
        self._inner = httpcore.AnyIOBackend()
        self._allowed = {ipaddress.ip_address(address) for address in allowed}
        self._resolve = resolve

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature is httpcore's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses = [ipaddress.ip_address(text) for text in await self._resolve(host, port)]
        if not addresses:
            raise NotPublic("the name has no address")
        for address in addresses:
            if address in self._allowed:
                continue
            if not is_public(address) or port != HTTPS_PORT:
                raise NotPublic("the name leads to an address that is not public")
        failure: Exception | None = None
        for address in addresses:
            try:
                return await self._inner.connect_tcp(
                    str(address), port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure or NotPublic("the name has no address")

    async def connect_unix_socket(
        self,
        path: str,  # noqa: ARG002 - the signature is httpcore's
        timeout: float | None = None,  # noqa: ARG002, ASYNC109 - the signature is httpcore's
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002 - the signature is httpcore's
    ) -> httpcore.AsyncNetworkStream:
        raise NotPublic("a socket of this machine is not public")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class WebPush:
    """Sends to browsers. `contact`: a mailto: or https: address for the push service's operator."""

    def __init__(
        self,
        key: ec.EllipticCurvePrivateKey,
        contact: str,
        *,
        network: httpcore.AsyncNetworkBackend | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._key = key
        self._contact = contact
        # No redirect is followed, no proxy is asked, no cookie is kept.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls or ssl.create_default_context(),
            max_connections=20,
            max_keepalive_connections=5,
            keepalive_expiry=30,
            network_backend=network or PublicInternet(),
        )

    async def close(self) -> None:
        await self._pool.aclose()

    async def send(self, letter: Letter) -> Outcome:
        subscription = letter.subscription
        if subscription is None:
            return Gone()
        notice = letter.notices[0]
        payload = orjson.dumps(
            {
                "notice_id": str(notice.notice_id),
                "kind": notice.kind,
                "text": discreet_sentence(notice.kind, notice.subject, letter.language),
                "language": letter.language,
            }
        )
        content = encrypt(
            payload,
            p256dh=subscription.p256dh,
            auth=subscription.auth,
            own_key=ec.generate_private_key(ec.SECP256R1()),
            salt=os.urandom(SALT_BYTES),
        )
        headers = {
            "Authorization": authorization(
                subscription.endpoint, self._key, contact=self._contact, now=letter.now
            ),
            "Content-Encoding": "aes128gcm",
            "Content-Type": "application/octet-stream",
            "TTL": str(int(MESSAGE_LIFETIME.total_seconds())),
            "Urgency": "normal",
        }
        return await self._post(subscription.endpoint, headers, content)

    async def _post(self, endpoint: str, headers: dict[str, str], content: bytes) -> Outcome:
        try:
            async with (
                asyncio.timeout(SEND_TIMEOUT_S),
                # The status is all that counts: the body is not read.
                self._pool.stream(
                    "POST",
                    endpoint,
                    headers=list(headers.items()),
                    content=content,
                    extensions={"timeout": dict.fromkeys(("connect", "read", "write"), 10.0)},
                ) as answer,
            ):
                return judge_status(answer.status, dict(answer.headers))
        except NotPublic:
            return Refused("address_not_public")
        except (httpcore.UnsupportedProtocol, httpcore.LocalProtocolError, UnicodeError):
            return Refused("address_malformed")
        except socket.gaierror:
            return Away("name_not_resolved")
        except (
            httpcore.NetworkError,
            httpcore.TimeoutException,
            httpcore.ProtocolError,
            OSError,
        ) as error:
            return Away(type(error).__name__)


def judge_status(status: int, headers: dict[bytes, bytes]) -> Outcome:
    """What an answer of a push service means (RFC 8030, sections 5 and 8.4)."""
    if 200 <= status < 300:
        return Sent()
    if status in (404, 410):
        return Gone()
    if status == 429 or status >= 500:
        return Away(f"http_{status}", retry_after(headers))
    return Refused(f"http_{status}")


def retry_after(headers: dict[bytes, bytes]) -> timedelta | None:
    """The seconds of Retry-After; a date, or nonsense, counts as nothing said."""
    for name, value in headers.items():
        if name.lower() == b"retry-after" and value.isdigit() and len(value) <= 9:
            return timedelta(seconds=min(int(value), RETRY_AFTER_MAX_S))
    return None
