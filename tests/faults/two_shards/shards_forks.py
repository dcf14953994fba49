"""An old database is brought back, and then somebody makes it sign all the same."""

import asyncio
from pathlib import Path
from typing import Any

from shards_checks import verified, write_bundles
from shards_world import SECRET, Shard, World, call, restore

from common import db
from common.clock import utc_now
from common.ids import new_id
from timebank.clearing.keys import Vault
from timebank.log import service

BACKED_UP = "bourges"
HALTED_WITHIN_S = 60.0
HEARD_WITHIN_S = 30.0


async def fork_is_refused(world: World, backup: Path, folder: Path) -> list[str]:
    """What did not refuse the other history: its own time bank, the cosigners, the verifier."""
    honest = await write_bundles(world, folder)
    shard, other = world.shard_of(BACKED_UP), world.shards[0]
    held = await cosigned(other)
    signed = await last_size(shard)
    await restore(shard, backup)
    await give_within(shard)
    wrong = []
    if not await comes(is_halted, shard, HALTED_WITHIN_S):
        wrong.append("a log that was brought back was not halted")
    if await last_size(shard) >= signed:
        wrong.append("a log that was brought back was signed")
    await sign_anyway(shard)
    if not await comes(is_halted, shard, HALTED_WITHIN_S):
        wrong.append("a log that was forged was not halted again")
    if await cosigned(other) != held:
        wrong.append("another history was cosigned")
    forged = folder / "forged"
    forged.mkdir()
    code, said = await verified([*honest, *(await write_bundles(world, forged))])
    if code != 1 or BACKED_UP not in said:
        wrong.append(f"copass-verify did not name the fork: {said}")
    return wrong


async def comes(question: Any, shard: Shard, within_s: float) -> bool:
    loop = asyncio.get_running_loop()
    until = loop.time() + within_s
    while not await question(shard):
        if loop.time() > until:
            return False
        await asyncio.sleep(0.2)
    return True


async def ask(shard: Shard, question: str, *values: Any) -> Any:
    connection = await shard.connect()
    try:
        return await connection.fetchval(question, *values)
    finally:
        await connection.close()


async def is_halted(shard: Shard) -> bool:
    question = "SELECT halted IS NOT NULL FROM log_head WHERE city_id = $1"
    return bool(await ask(shard, question, BACKED_UP))


async def last_size(shard: Shard) -> int:
    question = "SELECT coalesce(max(size), 0) FROM log_checkpoint WHERE city_id = $1"
    return int(await ask(shard, question, BACKED_UP))


async def cosigned(other: Shard) -> Any:
    """What the cities of the other time bank hold of this log."""
    question = "SELECT array_agg((cosigner, size, root) ORDER BY cosigner)::text FROM log_seen"
    return await ask(other, f"{question} WHERE city_id = $1", BACKED_UP)


async def give_within(shard: Shard) -> None:
    """Something new, so that there is something to sign."""
    payer, payee = shard.members[BACKED_UP][:2]
    body = {
        "from_account": str(payer.account_id),
        "to_account": str(payee.account_id),
        "minutes": 7,
    }
    answer = await call(
        shard, "transfers", body, str(new_id()), as_=str(payer.member_id), city=BACKED_UP
    )
    assert answer.status_code == 201, answer.text


async def sign_anyway(shard: Shard) -> None:
    """As somebody with all rights over the database and the city's key would."""
    connection = await db.connect(shard.dsn, name="test-forger")
    try:
        async with connection.transaction():
            await connection.execute(
                "UPDATE log_head SET halted = NULL WHERE city_id = $1", BACKED_UP
            )
            await service.sequence(connection, BACKED_UP)
            signed = await service.sign_checkpoint(connection, Vault(SECRET), BACKED_UP, utc_now())
            assert signed is not None
    finally:
        await connection.close()
