"""What the database itself holds, whoever asks."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from common import db
from common.ids import new_id
from timebank.settings import as_app_role

CHANGES = [
    "UPDATE posting SET minutes = minutes + 1",
    "UPDATE posting SET minutes = minutes WHERE false",
    "DELETE FROM posting",
    "TRUNCATE posting CASCADE",
    "UPDATE transfer SET kind = 'transfer'",
    "DELETE FROM transfer",
    "TRUNCATE transfer CASCADE",
]


@pytest.fixture
async def app_role(bank: Any) -> AsyncIterator[db.Connection]:
    """A connection as the service has it."""
    connection = await db.connect(as_app_role(bank.dsn), name="test-app")
    yield connection
    await connection.close()


@pytest.fixture
async def posted(bank: Any) -> UUID:
    """A transfer of 90 minutes from Anna to Bruno."""
    answer = await bank.caller("anna").pay(bank.accounts["anna"], bank.accounts["bruno"], 90)
    return UUID(answer.json()["transfer_id"])


async def test_the_service_works_as_a_role_that_owns_nothing(bank: Any) -> None:
    async with bank.pool.acquire() as conn:
        assert await conn.fetchval("SELECT current_user") == "timebank_app"
    # The pool's reset between two users must not give the login's own rights back.
    async with bank.pool.acquire() as conn:
        assert await conn.fetchval("SELECT current_user") == "timebank_app"
        assert not await conn.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")


async def test_the_services_role_may_not_change_what_is_posted(
    app_role: db.Connection, posted: UUID, subtests: pytest.Subtests
) -> None:
    for change in CHANGES:
        with subtests.test(change), pytest.raises(asyncpg.InsufficientPrivilegeError):
            await app_role.execute(change)


async def test_the_owner_is_stopped_by_a_trigger(
    owner: db.Connection, posted: UUID, subtests: pytest.Subtests
) -> None:
    for change in CHANGES:
        refused = pytest.raises(asyncpg.RestrictViolationError, match="the ledger only grows")
        with subtests.test(change), refused:
            await owner.execute(change)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE account SET balance_minutes = balance_minutes + 1 WHERE kind = 'commons'",
        "UPDATE account SET version = version + 1 WHERE kind = 'commons'",
    ],
)
async def test_a_balance_without_its_posting_does_not_commit(
    app_role: db.Connection, posted: UUID, change: str
) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await app_role.execute(change)


async def insert_transfer(conn: db.Connection, transfer_id: UUID) -> None:
    await conn.execute(
        "INSERT INTO transfer VALUES ($1, 'nantes', 'transfer', NULL, 'test', now())", transfer_id
    )


async def insert_posting(
    conn: db.Connection,
    transfer_id: UUID,
    account_id: UUID,
    minutes: int,
    *,
    version: int = 1,
    balance: int | None = None,
    city: str = "nantes",
) -> None:
    """Insert a posting and move the account with it, as a careless program would."""
    balance = minutes if balance is None else balance
    await conn.execute(
        "INSERT INTO posting VALUES ($1, $2, $3, $4, $5, $6, now())",
        account_id,
        version,
        transfer_id,
        city,
        minutes,
        balance,
    )
    await conn.execute(
        "UPDATE account SET balance_minutes = $2, version = $3 WHERE account_id = $1",
        account_id,
        balance,
        version,
    )


async def post(
    conn: db.Connection, *postings: dict[str, Any], added_to: UUID | None = None
) -> None:
    """A transfer as a careless program would write it, in one transaction."""
    transfer_id = added_to or new_id()
    async with conn.transaction():
        if added_to is None:
            await insert_transfer(conn, transfer_id)
        for posting in postings:
            await insert_posting(conn, transfer_id, **posting)


async def test_what_does_not_sum_to_zero_does_not_commit(
    bank: Any, app_role: db.Connection
) -> None:
    transaction = app_role.transaction()
    await transaction.start()
    transfer_id = new_id()
    await insert_transfer(app_role, transfer_id)
    await insert_posting(app_role, transfer_id, bank.accounts["anna"], -5)
    await insert_posting(app_role, transfer_id, bank.accounts["bruno"], 4)
    # Deferred: only the end of the transaction can tell.
    with pytest.raises(asyncpg.CheckViolationError, match="do not sum to zero"):
        await transaction.commit()
    assert await bank.transfers() == 0


async def test_a_transfer_without_postings_does_not_commit(
    bank: Any, app_role: db.Connection
) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match="do not sum to zero"):
        await post(app_role)


async def test_nothing_is_added_to_a_transfer_of_before(
    bank: Any, app_role: db.Connection, posted: UUID
) -> None:
    received = {"account_id": bank.accounts["nantes commons"], "minutes": 5}
    with pytest.raises(asyncpg.CheckViolationError, match="do not sum to zero"):
        await post(app_role, received, added_to=posted)


@pytest.mark.parametrize("wrong", [{"version": 2}, {"balance": -4}])
async def test_a_posting_continues_the_one_before(
    bank: Any, app_role: db.Connection, wrong: dict[str, int]
) -> None:
    given = {"account_id": bank.accounts["anna"], "minutes": -5, **wrong}
    received = {"account_id": bank.accounts["bruno"], "minutes": 5}
    with pytest.raises(asyncpg.CheckViolationError, match="does not continue"):
        await post(app_role, given, received)


async def test_the_floor_is_held_by_the_database(bank: Any, app_role: db.Connection) -> None:
    given = {"account_id": bank.accounts["anna"], "minutes": -601}
    received = {"account_id": bank.accounts["bruno"], "minutes": 601}
    with pytest.raises(asyncpg.CheckViolationError, match="account_floor"):
        await post(app_role, received, given)


async def post_at_once(conn: db.Connection, *lines: tuple[UUID, UUID, int]) -> None:
    """Postings (transfer, account, minutes) of new transfers in one statement, as the service
    writes them; each account's first."""
    await conn.execute(
        """
        WITH line AS (
            SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[])
                AS line (transfer_id, account_id, minutes)
        ), new_transfer AS (
            INSERT INTO transfer
            SELECT DISTINCT transfer_id, 'nantes', 'transfer', NULL::uuid, 'test', now() FROM line
        ), new_posting AS (
            INSERT INTO posting
            SELECT account_id, 1, transfer_id, 'nantes', minutes, minutes, now() FROM line
        )
        UPDATE account SET balance_minutes = line.minutes, version = 1
        FROM line WHERE account.account_id = line.account_id
        """,
        *(list(column) for column in zip(*lines, strict=True)),
    )


async def last_unsettled(owner: db.Connection) -> int | None:
    """The number of the last row that ever was in `unsettled`."""
    last: int | None = await owner.fetchval(
        "SELECT last_value FROM pg_sequences WHERE sequencename = 'unsettled_id_seq'"
    )
    return last


async def test_what_one_statement_leaves_right_is_settled_with_it(
    bank: Any, app_role: db.Connection, owner: db.Connection
) -> None:
    transfer_id = new_id()
    await post_at_once(
        app_role,
        (transfer_id, bank.accounts["nantes commons"], -5),
        (transfer_id, bank.accounts["bruno"], 5),
    )
    await bank.caller("anna").pay(bank.accounts["anna"], bank.accounts["bruno"], 90)
    assert await bank.transfers() == 2
    # Not even one that is gone again: nothing was left to the end of the transaction.
    assert await last_unsettled(owner) is None


async def test_what_several_statements_make_right_together_commits(
    bank: Any, app_role: db.Connection, owner: db.Connection
) -> None:
    given = {"account_id": bank.accounts["anna"], "minutes": -5}
    received = {"account_id": bank.accounts["bruno"], "minutes": 5}
    await post(app_role, given, received)
    assert await bank.transfers() == 1
    # What was left to the end of the transaction was looked at, and is gone.
    assert await owner.fetchval("SELECT count(*) FROM unsettled") == 0
    assert await last_unsettled(owner) is not None


async def test_the_balance_may_be_moved_before_the_postings_come(
    bank: Any, app_role: db.Connection
) -> None:
    transfer_id = new_id()
    lines = [(bank.accounts["anna"], -5), (bank.accounts["bruno"], 5)]
    async with app_role.transaction():
        await insert_transfer(app_role, transfer_id)
        for account_id, minutes in lines:
            await app_role.execute(
                "UPDATE account SET balance_minutes = $2, version = 1 WHERE account_id = $1",
                account_id,
                minutes,
            )
        for account_id, minutes in lines:
            await app_role.execute(
                "INSERT INTO posting VALUES ($1, 1, $2, 'nantes', $3, $3, now())",
                account_id,
                transfer_id,
                minutes,
            )
    assert await bank.transfers() == 1


async def test_transfers_that_sum_to_zero_only_together_do_not_commit(
    bank: Any, app_role: db.Connection
) -> None:
    transaction = app_role.transaction()
    await transaction.start()
    await post_at_once(
        app_role, (new_id(), bank.accounts["anna"], -5), (new_id(), bank.accounts["bruno"], 5)
    )
    with pytest.raises(asyncpg.CheckViolationError, match="do not sum to zero"):
        await transaction.commit()
    assert await bank.transfers() == 0


async def test_one_wrong_transfer_among_right_ones_is_found(
    bank: Any, app_role: db.Connection
) -> None:
    right, wrong = new_id(), new_id()
    with pytest.raises(asyncpg.CheckViolationError, match=f"transfer {wrong} do not sum to zero"):
        await post_at_once(
            app_role,
            (right, bank.accounts["anna"], -5),
            (right, bank.accounts["bruno"], 5),
            (wrong, bank.accounts["nantes commons"], -7),
            (wrong, bank.accounts["nantes solidarity_fund"], 8),
        )
    assert await bank.transfers() == 0


async def test_who_wants_to_know_at_once_is_told_at_once(
    bank: Any, app_role: db.Connection
) -> None:
    async with app_role.transaction():
        await app_role.execute("SET CONSTRAINTS ALL IMMEDIATE")
        with pytest.raises(asyncpg.CheckViolationError, match="do not sum to zero"):
            await insert_transfer(app_role, new_id())


async def test_a_posting_that_moves_no_balance_does_not_commit(
    bank: Any, app_role: db.Connection
) -> None:
    transfer_id = new_id()
    transaction = app_role.transaction()
    await transaction.start()
    await insert_transfer(app_role, transfer_id)
    for name, minutes in (("anna", -5), ("bruno", 5)):
        await app_role.execute(
            "INSERT INTO posting VALUES ($1, 1, $2, 'nantes', $3, $3, now())",
            bank.accounts[name],
            transfer_id,
            minutes,
        )
    with pytest.raises(asyncpg.CheckViolationError, match="not that of its last posting"):
        await transaction.commit()


async def test_an_account_does_not_go_back_to_an_earlier_posting(
    bank: Any, app_role: db.Connection, posted: UUID
) -> None:
    await bank.caller("anna").pay(bank.accounts["anna"], bank.accounts["bruno"], 10)
    with pytest.raises(asyncpg.CheckViolationError, match="not that of its last posting"):
        await app_role.execute(
            "UPDATE account SET balance_minutes = -90, version = 1 WHERE account_id = $1",
            bank.accounts["anna"],
        )


async def test_an_account_does_not_begin_with_minutes(app_role: db.Connection, bank: Any) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match="not that of its last posting"):
        await app_role.execute(
            "INSERT INTO account (account_id, city_id, kind, owner_id, balance_minutes, version,"
            " opened_at) VALUES ($1, 'nantes', 'organisation', $1, 60, 1, now())",
            new_id(),
        )


@pytest.mark.parametrize("missing", ["transfer", "account"])
async def test_a_posting_has_a_transfer_and_an_account(
    bank: Any, app_role: db.Connection, posted: UUID, missing: str
) -> None:
    with pytest.raises(asyncpg.ForeignKeyViolationError, match="not both of city nantes"):
        await app_role.execute(
            "INSERT INTO posting VALUES ($1, 2, $2, 'nantes', 5, 5, now())",
            new_id() if missing == "account" else bank.accounts["anna"],
            new_id() if missing == "transfer" else posted,
        )


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM account",
        "TRUNCATE account CASCADE",
        "UPDATE account SET city_id = 'bourges'",
        "UPDATE account SET account_id = gen_random_uuid()",
    ],
)
async def test_an_account_stays_where_it_is(owner: db.Connection, bank: Any, change: str) -> None:
    with pytest.raises(asyncpg.RestrictViolationError, match="the ledger only grows"):
        await owner.execute(change)


@pytest.mark.parametrize(
    "change",
    ["INSERT INTO unsettled (transfer_id) VALUES (gen_random_uuid())", "DELETE FROM unsettled"],
)
async def test_the_services_role_has_no_hand_in_what_is_still_to_be_looked_at(
    app_role: db.Connection, change: str
) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app_role.execute(change)


@pytest.mark.parametrize("city", ["nantes", "bourges"])
async def test_no_posting_leaves_its_city(bank: Any, app_role: db.Connection, city: str) -> None:
    given = {"account_id": bank.accounts["anna"], "minutes": -5}
    received = {"account_id": bank.accounts["chloe"], "minutes": 5, "city": city}
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await post(app_role, given, received)
