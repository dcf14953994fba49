"""What a city says to another."""

from datetime import datetime

from pydantic import BaseModel

from common import outbox
from common.db import Conn
from common.ids import new_id
from timebank import events
from timebank.clearing import messages, store
from timebank.clearing.keys import Vault
from timebank.clearing.messages import Message


async def say(
    conn: Conn,
    vault: Vault,
    from_city: str,
    to_city: str,
    body: BaseModel,
    now: datetime,
    *,
    keep: bool = True,
) -> Message:
    """Sign a message, keep it as evidence, and send it when this transaction has ended well.

    `keep`: not what is said every few minutes and proves nothing later.

    Raises LookupError when the city has no key yet: its worker makes one within seconds.
    """
    sealed = await store.find_sealed_key(conn, from_city)
    if sealed is None:
        raise LookupError(f"{from_city} has no key yet")
    message = messages.write_message(
        vault.open(sealed, from_city),
        message_id=new_id(),
        from_city=from_city,
        to_city=to_city,
        body=body,
        now=now,
    )
    if keep:
        await store.keep_message(conn, from_city, message, sent=True, now=now)
    await outbox.add(
        conn,
        topic=events.CLEARING,
        key=str(message.transfer_id or f"{from_city} {to_city}"),
        type=events.CLEARING_SAID,
        data=message.raw,
        now=now,
    )
    return message
