"""What access publishes, and the state topics that it keeps in Redis.

The data of a tap is made in tap.py; its schema is contracts/events/access.tap.decided.v1.json.
"""

from common.events import Topic

TAPS = Topic("access.taps.v1", compacted=False)
TAP_DECIDED = "access.tap.decided.v1"

CARDS = Topic("identity.cards.v1", compacted=True)
MEMBERS = Topic("identity.members.v1", compacted=True)
READERS = Topic("identity.readers.v1", compacted=True)
PLACES = Topic("places.places.v1", compacted=True)
STANDINGS = Topic("timebank.standings.v1", compacted=True)
PROJECTED = (CARDS, MEMBERS, READERS, PLACES, STANDINGS)

HISTORY_GROUP = "access.history"
PROJECTION_GROUP = "access.projection"
