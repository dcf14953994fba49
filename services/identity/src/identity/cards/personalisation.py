"""What the card programmer writes to an NTAG 424 DNA card. Pure.

NXP NT4H2421Gx data sheet and AN12196: the NDEF file begins with a link in which the card puts, at
each reading, PICCData and a MAC of its own. The bytes below are those of ChangeFileSettings.
"""

from dataclasses import dataclass

from copass_tap.ntag424 import KEY_CHANGE, KEY_FILE_READ, KEY_META_READ, KeySet

PICC_DIGITS = 32
MAC_DIGITS = 16
SCHEME = "https://"
# NDEF: two bytes of length, then a short record (D1), a type of one byte, the length of the
# payload, the type U, and 04, which stands for https://.
RECORD_HEADER_BYTES = 7
URL_BYTES_MAX = 250
# The NDEF file of the card, which holds 256 bytes.
NDEF_FILE = 2

PURPOSES = {
    KEY_CHANGE: "change keys and settings",
    KEY_FILE_READ: "sign each message",
    KEY_META_READ: "hide the UID in each message",
}


@dataclass(frozen=True, slots=True)
class Sheet:
    """Hexadecimal throughout, upper case. `keys`: slot → key; a blank card's are zeros."""

    uid: str
    url: str
    ndef_file: str
    file_settings: str
    keys: dict[int, str]


def is_link(url: str) -> bool:
    """Whether a message fits behind the address."""
    return url.startswith(SCHEME) and len(message_link(url).encode()) <= URL_BYTES_MAX


def message_link(url: str) -> str:
    return f"{url}?e={'0' * PICC_DIGITS}&c={'0' * MAC_DIGITS}"


def make_sheet(keys: KeySet, uid: str, url: str) -> Sheet:
    """The sheet of one card: `uid` of 14 digits, `url` an address for which `is_link` holds."""
    link = message_link(url).removeprefix(SCHEME).encode()
    record = bytes([0xD1, 0x01, len(link) + 1, ord("U"), 0x04]) + link
    ndef = len(record).to_bytes(2, "big") + record
    picc_at = RECORD_HEADER_BYTES + link.index(b"?e=") + 3
    mac_at = RECORD_HEADER_BYTES + link.index(b"&c=") + 3
    return Sheet(
        uid=uid,
        url=message_link(url),
        ndef_file=ndef.hex().upper(),
        file_settings=file_settings(picc_at, mac_at).hex().upper(),
        keys={number: keys.key_of(bytes.fromhex(uid), number).hex().upper() for number in PURPOSES},
    )


def file_settings(picc_at: int, mac_at: int) -> bytes:
    """ChangeFileSettings of the NDEF file: messages on, everybody reads, key 0 writes.

    The MAC begins where its input begins, so that it covers UID and counter and no text.
    """
    return b"".join(
        (
            b"\x40",  # messages on, communication in plain
            b"\x00\xe0",  # change: key 0, read and write: key 0; write: key 0, read: everybody
            b"\xc1",  # mirror the UID and the counter, in ASCII
            bytes([0xF0 | KEY_FILE_READ, KEY_META_READ << 4 | KEY_FILE_READ]),
            picc_at.to_bytes(3, "little"),
            mac_at.to_bytes(3, "little"),
            mac_at.to_bytes(3, "little"),
        )
    )
