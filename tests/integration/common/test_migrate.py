import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from common.migrate import MigrationError, migrate


@pytest.fixture
async def empty_database(postgres_url: str) -> AsyncIterator[str]:
    name = f"migrate_{uuid4().hex[:10]}"
    admin = await asyncpg.connect(postgres_url)
    await admin.execute(f"CREATE DATABASE {name}")
    yield postgres_url.rsplit("/", 1)[0] + "/" + name
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


def write(folder: Path, name: str, sql: str) -> None:
    (folder / name).write_text(sql, encoding="utf-8")


async def test_files_run_once_in_order_after_the_plumbing(
    empty_database: str, tmp_path: Path
) -> None:
    write(tmp_path, "0002_b.sql", "ALTER TABLE a ADD COLUMN more int;")
    write(tmp_path, "0001_a.sql", "CREATE TABLE a (id int);")
    applied = await migrate(empty_database, "thing", tmp_path)
    assert applied[0] == "common/0001_plumbing.sql"
    assert applied[-2:] == ["thing/0001_a.sql", "thing/0002_b.sql"]
    assert await migrate(empty_database, "thing", tmp_path) == []


async def test_a_file_that_changed_afterwards_is_refused(
    empty_database: str, tmp_path: Path
) -> None:
    write(tmp_path, "0001_a.sql", "CREATE TABLE a (id int);")
    await migrate(empty_database, "thing", tmp_path)
    write(tmp_path, "0001_a.sql", "CREATE TABLE a (id bigint);")
    with pytest.raises(MigrationError, match="0001_a"):
        await migrate(empty_database, "thing", tmp_path)
    (tmp_path / "0001_a.sql").unlink()
    with pytest.raises(MigrationError, match="missing"):
        await migrate(empty_database, "thing", tmp_path)


async def test_a_file_that_fails_leaves_nothing_and_can_be_mended(
    empty_database: str, tmp_path: Path
) -> None:
    write(tmp_path, "0001_a.sql", "CREATE TABLE a (id int); SELECT 1/0;")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(empty_database, "thing", tmp_path)
    write(tmp_path, "0001_a.sql", "CREATE TABLE a (id int);")
    assert await migrate(empty_database, "thing", tmp_path) == ["thing/0001_a.sql"]


async def test_two_at_once_apply_each_file_once(empty_database: str, tmp_path: Path) -> None:
    write(tmp_path, "0001_a.sql", "CREATE TABLE a (id int); SELECT pg_sleep(0.2);")
    first, second = await asyncio.gather(
        migrate(empty_database, "thing", tmp_path), migrate(empty_database, "thing", tmp_path)
    )
    assert sorted([len(first), len(second)]) == [0, 2]


async def test_an_index_may_be_built_outside_a_transaction(
    empty_database: str, tmp_path: Path
) -> None:
    write(tmp_path, "0001_a.sql", "CREATE TABLE a (id int);")
    write(tmp_path, "0002_i.sql", "-- no-transaction\nCREATE INDEX CONCURRENTLY a_id ON a (id);")
    assert (await migrate(empty_database, "thing", tmp_path))[-1] == "thing/0002_i.sql"
