"""The fixtures give real servers, and a server can be killed and started again."""

from pathlib import Path

import asyncpg
from redis.asyncio import Redis

from copass import servers


async def test_postgresql_answers_a_query(postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    try:
        assert await connection.fetchval("SHOW server_version_num") >= "180000"
    finally:
        await connection.close()


async def test_valkey_is_empty_at_the_start_of_a_test(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as client:
        assert await client.dbsize() == 0
        await client.set("left", "behind")


async def test_valkey_is_empty_again_after_another_test_wrote(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as client:
        assert await client.dbsize() == 0


async def test_the_broker_answers_metadata(kafka_bootstrap: str) -> None:
    await servers.kafka_answers(kafka_bootstrap)


async def test_postgresql_keeps_what_was_committed_before_kill_9(
    start_server, server_folder: Path, unused_port: int
) -> None:
    running = await start_server(servers.postgres(server_folder, unused_port, "secret"))
    connection = await asyncpg.connect(running.url)
    await connection.execute("CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)")
    running.kill()
    await connection.close(timeout=1)
    await running.start()
    connection = await asyncpg.connect(running.url)
    try:
        assert await connection.fetchval("SELECT n FROM kept") == 7
    finally:
        await connection.close()


async def test_valkey_keeps_its_data_over_a_stop(
    start_server, server_folder: Path, unused_port: int
) -> None:
    running = await start_server(servers.valkey(server_folder, unused_port))
    async with Redis.from_url(running.url) as client:
        await client.set("kept", "7")
    running.stop()
    await running.start()
    async with Redis.from_url(running.url) as client:
        assert await client.get("kept") == b"7"
