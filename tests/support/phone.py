"""A member's phone: what its page shows, made with the primitives alone."""

import base64
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


class Phone:
    """`public_key` is what it enrols; `show` what stands in its QR during a window of 30 s."""

    def __init__(self, card_id: str = "00000000-0000-0000-0000-000000000000") -> None:
        self.card_id = card_id
        self.key = ec.generate_private_key(ec.SECP256R1())
        point = self.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        self.public_key = base64.urlsafe_b64encode(point).rstrip(b"=").decode()

    def show(self, window: int) -> str:
        told = UUID(self.card_id).bytes + window.to_bytes(4)
        signature = self.key.sign(b"copass phone pass v1\n" + told, ec.ECDSA(SHA256()))
        raw = told + b"".join(number.to_bytes(32) for number in decode_dss_signature(signature))
        return "CP1." + base64.b32encode(raw).rstrip(b"=").decode()
