"""The words of UHPPOTE controllers in host-controlled mode. Pure; bytes are the package's affair.

The controller tells of a swipe that it did not let in by itself; the gateway asks access and sends
an open command. It does so only while it hears from its host every 30 seconds, else it decides by
the cards that it keeps: keep none on it.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from uhppoted.structs import Event

from copass_edge.gateway.settings import Direction
from copass_edge.gateway.swipes import tap_id_of

SWIPE = 1
OUT = 2
# Denied for the host to decide, without a right at this door, or not known at all. Every other
# refusal is a rule that was set on the controller (a time, an interlock, a wrong code): it stands.
ASKED = frozenset({5, 6, 18})
# A command that comes later opens for whoever stands there then.
EVENT_AGE_MAX = timedelta(seconds=5)
KEEP_CONTROL_S = 10.0
PACKET_BYTES = 64


@dataclass(frozen=True, slots=True)
class Held:
    """A card at a door. `mode` replay: the controller let it in by itself."""

    serial: int
    door: int
    number: int
    direction: Direction
    mode: Literal["live", "replay"]
    age: timedelta
    tap_id: str


def read_event(event: Event) -> Held | None:
    """The swipe in an event; None for doors, buttons, alarms, and refusals that stand.

    Its age is measured on the controller's own clock, both ends of it, so that clock need not be
    right. A controller that shows no time has no age to trust: its event is as old as can be.
    """
    if event.event_type != SWIPE or not 1 <= event.event_door <= 4 or event.event_card <= 0:
        return None
    if not event.event_access_granted and event.event_reason not in ASKED:
        return None
    age = timedelta.max
    if event.event_timestamp and event.system_date and event.system_time:
        shown = datetime.combine(event.system_date, event.system_time)
        age = shown - event.event_timestamp
    return Held(
        serial=event.controller,
        door=event.event_door,
        number=event.event_card,
        direction="out" if event.event_direction == OUT else "in",
        mode="replay" if event.event_access_granted else "live",
        age=age,
        tap_id=tap_id_of(
            "uhppote", event.controller, event.event_index, event.event_timestamp, event.event_card
        ),
    )


def is_fresh(held: Held, waited: timedelta) -> bool:
    """Whether opening would be for the one who stands there. `waited`: since the event arrived."""
    return timedelta(seconds=-1) <= held.age <= EVENT_AGE_MAX - waited
