"""The time bank with a bug planted in it: what the checks are tried on.

`python planted.py BUG api|worker` is `python -m timebank api|worker` with one thing broken. Nothing
of the product knows of it.
"""

import asyncio
import sys
from collections.abc import Callable, Sequence
from typing import Any

from common import consumer, inbox, outbox
from common.events import Event
from timebank.clearing import service, store
from timebank.domain import Leg
from timebank.events import CLEARING


def skip_the_outbox() -> None:
    """One in five answers is decided and kept, and never told, however often it is asked for."""
    add = outbox.add

    async def add_most(conn: Any, *, topic: Any, data: dict[str, Any], **more: Any) -> Any:
        is_answer = topic == CLEARING and data["body"]["kind"] in ("accepted", "rejected")
        if is_answer and int(data["body"]["transfer_id"][-1], 16) % 5 == 0:
            return None
        return await add(conn, topic=topic, data=data, **more)

    outbox.add = add_most


def mark_unsent_as_published() -> None:
    """One row in twenty is marked as published, and was not sent."""
    publish = outbox.Relay._publish_batch

    async def publish_most(self: Any, connection: Any, producer: Any) -> int:
        await connection.execute(
            "UPDATE outbox SET published_at = now() WHERE published_at IS NULL AND id % 20 = 0"
        )
        return await publish(self, connection, producer)

    outbox.Relay._publish_batch = publish_most


def drop_the_inbox() -> None:
    """What is heard again is done again.

    The inbox is not the only guard: the destination looks whether it decided before, and the
    database has a constraint. The first two go; the third makes a dead letter of it.
    """

    async def claim_all(conn: Any, name: str, events: Sequence[Event]) -> list[Event]:
        return list(events)

    async def find_nothing(conn: Any, city_id: str, transfer_id: Any) -> None:
        return None

    inbox.claim = claim_all
    store.find_arrival = find_nothing


def commit_the_offset_first() -> None:
    """A message that was being handled when the process died is never handled.

    What is not answered is asked again, and heals; but what stewards agree about is said once.
    """

    async def handle_late(self: Any, client: Any, batches: Any) -> None:
        done = {tp: records[-1].offset + 1 for tp, records in batches.items() if records}
        if done:
            await client.commit(done)
        for records in batches.values():
            for record in records:
                if b"reversal.agreed" in record.value:
                    await asyncio.sleep(1)  # so that few kills are enough
                await self._handle(record)

    consumer.Consumer._handle_all = handle_late


def lose_a_return() -> None:
    """What the other city refused is noted as returned, and reaches the payer's city only."""
    post = service.post_for_sure

    async def post_most(conn: Any, city_id: str, purpose: str, legs: Any, now: Any) -> Any:
        if purpose == "return":
            legs = (legs[0], Leg(await commons_of(conn, city_id), -legs[0].minutes))
        return await post(conn, city_id, purpose, legs, now)

    service.post_for_sure = post_most


async def commons_of(conn: Any, city_id: str) -> Any:
    return await conn.fetchval(
        "SELECT account_id FROM account WHERE city_id = $1 AND kind = 'commons'", city_id
    )


def forget_keys() -> None:
    """A request that is repeated is done again."""
    from common import idempotency
    from timebank import routes

    run = idempotency.run_once

    async def run_again(pool: Any, *, key: str, **more: Any) -> Any:
        from common.ids import new_id

        return await run(pool, key=str(new_id()), **more)

    routes.run_once = run_again


def answer_before_it_is_kept() -> None:
    """The database says yes before it has written (`synchronous_commit`, set where it starts)."""


BUGS: dict[str, Callable[[], None]] = {
    bug.__name__: bug
    for bug in (
        skip_the_outbox,
        mark_unsent_as_published,
        drop_the_inbox,
        commit_the_offset_first,
        lose_a_return,
        forget_keys,
        answer_before_it_is_kept,
    )
}


if __name__ == "__main__":
    BUGS[sys.argv.pop(1)]()
    from timebank.__main__ import cli

    cli()
