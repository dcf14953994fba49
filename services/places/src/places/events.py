"""What this service tells the others."""

from common.events import Topic

PLACES = Topic("places.places.v1", compacted=True)
PLACE_CHANGED = "places.place.changed.v1"

TOPICS = (PLACES,)
