"""The words of esp-rfid, over MQTT. Pure.

The device decides by itself, from the users kept on it, and tells of it on `TOPIC/send` (with Home
Assistant turned on: `TOPIC/tag`). It takes commands on `TOPIC/cmd` that name its own address.

Many of its versions print each byte of a UID without its leading zero: 04 1D and 41 0D are both
`41d`. What was printed is turned back into the one UID that it can have been, or refused.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Literal

from copass_tap.credentials import normalise_uid

UID_TEXT_MAX = 20
READINGS_MAX = 2  # enough to know that there is more than one
# Its clock is that of NTP; one that is further off is not running.
CLOCK_ERROR_MAX = timedelta(minutes=10)
USER_ALWAYS = 1

UidForm = Literal["padded", "unpadded"]


@dataclass(frozen=True, slots=True)
class Seen:
    """The device tells that it saw a card. `device_time`: epoch seconds of its own clock."""

    uid_text: str
    device_time: int
    opened: bool


def event_topics(topic: str) -> tuple[str, str]:
    return f"{topic}/send", f"{topic}/tag"


def command_topic(topic: str) -> str:
    return f"{topic}/cmd"


def read_event(payload: bytes) -> Seen | None:
    """A card that the device saw; None for all else it tells (boot, heartbeat, …).

    `access` is Always or Admin where it opened, Disabled, Expired or Denied where it did not.
    """
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    match document:
        case {"uid": str() as uid, "access": str() as access, "time": int() | str() as time}:
            if document.get("type", "access") != "access" or not uid.strip():
                return None  # an open command by MQTT is told as an access without a card
            if isinstance(time, str) and not (time.isascii() and time.isdigit()):
                return None
            if len(uid) > UID_TEXT_MAX or not 0 <= int(str(time)[:12]) < 2**33:
                return None
            return Seen(uid.strip(), int(time), access in ("Always", "Admin"))
    return None


def occurred_at(seen: Seen, utc_offset_minutes: int, now: datetime) -> datetime:
    """When it happened, by the device's clock; now, where that clock cannot be right."""
    at = datetime.fromtimestamp(seen.device_time - utc_offset_minutes * 60, UTC)
    return at if abs(at - now) <= CLOCK_ERROR_MAX else now


def device_time(now: datetime, utc_offset_minutes: int) -> int:
    """What the device's clock shows."""
    return int(now.timestamp()) + utc_offset_minutes * 60


# --- UIDs ----------------------------------------------------------------------------------------


def printed(uid: str, form: UidForm) -> str:
    """A UID as the device prints it, and names its user's file by it."""
    raw = bytes.fromhex(uid)
    return raw.hex() if form == "padded" else "".join(f"{byte:x}" for byte in raw)


def readings(text: str, sizes: Sequence[int], prefix: str) -> Iterator[str]:
    """Every UID of these sizes that begins with the prefix and would be printed unpadded so."""
    for size in sizes:
        for raw in split(text.lower(), size):
            uid = normalise_uid(raw)
            if uid is not None and uid.startswith(prefix):
                yield uid


def split(text: str, size: int) -> Iterator[str]:
    """The padded hex of every row of `size` bytes that is printed as `text`. At most a few
    hundred: a text of n digits has n - size bytes of two digits."""
    if size == 0:
        if not text:
            yield ""
        return
    if not size <= len(text) <= 2 * size:
        return
    yield from ("0" + text[0] + rest for rest in split(text[1:], size - 1))
    if len(text) > 1 and text[0] != "0":
        yield from (text[:2] + rest for rest in split(text[2:], size - 1))


def resolve(
    text: str,
    form: UidForm,
    sizes: Sequence[int],
    prefix: str,
    listed: Mapping[str, str],
) -> str | Literal["malformed", "ambiguous"]:
    """The UID of a printed text. `listed`: printed text → UID of the cards that are known to the
    operator, which decide where several UIDs could have been meant."""
    if not text.isascii() or not text.isalnum():
        return "malformed"
    known = listed.get(text.lower())
    if known is not None:
        return known
    if form == "padded":
        uid = normalise_uid(text)
        fits = uid is not None and len(uid) // 2 in sizes and uid.startswith(prefix)
        return uid if uid is not None and fits else "malformed"
    if any(digit not in "0123456789abcdef" for digit in text.lower()):
        return "malformed"
    found = list(islice(readings(text, sizes, prefix), READINGS_MAX))
    if not found:
        return "malformed"
    return found[0] if len(found) == 1 else "ambiguous"


def printed_uids(uids: Iterable[str], form: UidForm) -> Mapping[str, str]:
    """Printed text → UID of listed cards. Raises ValueError when the device could not tell two
    apart: one of them would open with the rights of the other."""
    found: dict[str, str] = {}
    for uid in uids:
        text = printed(uid, form)
        if found.setdefault(text, uid) != uid:
            raise ValueError("two listed cards are printed alike by this device")
    return found


# --- Commands ------------------------------------------------------------------------------------


def add_user(address: str, text: str, *, device_time: int, valid: timedelta) -> dict[str, Any]:
    """Lets a card open by itself until `valid` is over, by the device's clock (epoch seconds). Its
    name is the printed UID: the device wants one, and has no use of a real one."""
    return {
        "cmd": "adduser",
        "doorip": address,
        "uid": text,
        "user": text,
        "acctype": str(USER_ALWAYS),
        "validsince": str(device_time),
        "validuntil": str(device_time + int(valid.total_seconds())),
    }


def delete_user(address: str, text: str) -> dict[str, Any]:
    return {"cmd": "deletuid", "doorip": address, "uid": text}
