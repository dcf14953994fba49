"""Whether a message that is of no agreement alone is of the city that it says it is from."""

from datetime import datetime

from common.db import Conn
from timebank.clearing import keys_store
from timebank.clearing.agreements import store as agreements_store
from timebank.clearing.handover import Chain
from timebank.clearing.messages import Message


async def keys_of(conn: Conn, city_id: str, of_city: str) -> Chain | None:
    """The keys of a city as one of ours knows them: as its agreement pins them, without one as they
    were announced. None: nobody has heard of it."""
    bond = await agreements_store.find_bond(conn, city_id, of_city)
    if bond is None:
        return await keys_store.peer_chain(conn, of_city)
    return await keys_store.with_handovers(conn, of_city, bond.peer_key)


async def is_believed(conn: Conn, message: Message, now: datetime) -> bool:
    """Whether a message that comes now is signed with a key that is in use."""
    chain = await keys_of(conn, message.to_city, message.from_city)
    sent_at = message.envelope.sent_at
    return chain is not None and any(map(message.is_from, chain.believed(now, sent_at)))


async def was_signed(conn: Conn, city_id: str, message: Message) -> bool:
    """Whether a message that somebody kept is signed with a key that its city ever had."""
    chain = await keys_of(conn, city_id, message.from_city)
    return chain is not None and any(map(message.is_from, chain.keys))
