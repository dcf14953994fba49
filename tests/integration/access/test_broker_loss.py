"""A broker that forgets everything: taps go on, and the projection finds its way again."""

import os
from pathlib import Path

import pytest
from access_world import Person, World, running, until, world_of

from common import db
from copass import servers

pytestmark = pytest.mark.skipif(
    os.environ.get("KAFKA") == "apache", reason="Apache Kafka keeps its log when it restarts"
)


async def test_taps_go_on_and_a_card_blocked_meanwhile_is_denied(
    config, server_folder: Path, start_server
) -> None:
    broker = await start_server(servers.tansu(server_folder, servers.unused_port()))
    settings = config.model_copy(update={"kafka_bootstrap": broker.url.removeprefix("kafka://")})
    pool = await db.create_pool(settings.database_url.get_secret_value(), name="test", max_size=20)
    async with world_of(settings, pool) as world:
        anne, bert, late = Person(), Person(), Person()
        await world.publish(world.place(), world.reader(), *anne.states(), *bert.states())
        async with running(
            world.projector().run,
            world.relay(resend_after_s=1).run,
            world.history_consumer().run,
        ):
            await world.ready()
            await until(lambda: is_reason(world, bert.uid, "network_member"))

            await world.stop_publishing()
            broker.kill()
            assert await world.reason(anne.uid) == "network_member"
            assert await world.is_ready()
            await broker.start()

            # What the owners' relays do: everything again, under the next epoch.
            await world.publish(
                world.place(),
                world.reader(),
                *bert.states(),
                *late.states(),
                anne.member(),
                anne.card(2, status="blocked"),
                anne.standing("good"),
                epoch=1,
            )
            await until(lambda: is_reason(world, anne.uid, "credential_blocked"), 40)
            await until(lambda: is_reason(world, late.uid, "network_member"), 40)

            async def is_empty() -> bool:
                return await world.stream_length() == 0

            await until(is_empty, 40)
        rows = await world.history()
        reasons = [row["reason"] for row in rows if str(row["member_id"]) == anne.member_id]
        assert reasons[0] == "network_member"
        assert reasons[-1] == "credential_blocked"
        assert len({row["decision_id"] for row in rows}) == len(rows)
    await pool.close()


async def is_reason(world: World, uid: str, reason: str) -> bool:
    return await world.reason(uid) == reason
