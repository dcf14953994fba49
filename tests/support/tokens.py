"""Access tokens as identity makes them, for a service that is tested without it."""

import base64
import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.clock import utc_now
from common.ids import new_id

ISSUER = "https://identity.test"
KEY = Ed25519PrivateKey.from_private_bytes(b"t" * 32)


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def key_set() -> dict[str, Any]:
    raw = KEY.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": b64(raw), "kid": "k", "alg": "EdDSA"}]}


@contextlib.contextmanager
def serving_keys() -> Iterator[str]:
    """The address of the key set, for programs that ask for it over HTTP."""

    class Keys(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(key_set()).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nobody reads it."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Keys) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/jwks"
        finally:
            server.shutdown()
            thread.join()


def token(sub: str, *, city: str | None, roles: tuple[str, ...]) -> str:
    now = int(utc_now().timestamp())
    claims = {
        "iss": ISSUER,
        "sub": sub,
        "aud": ["timebank"],
        "iat": now,
        "exp": now + 600,
        "jti": str(new_id()),
        "kind": "member",
        "city": city,
        "roles": list(roles),
    }
    return jwt.encode(claims, KEY, algorithm="EdDSA", headers={"kid": "k", "typ": "at+jwt"})
