"""Tables for auditors' own tools: CSV or Parquet, with the checkpoints that they belong to.

Apache Parquet: https://parquet.apache.org/docs/file-format/.
"""

import csv
import io
import zipfile
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import orjson

from common.export import cell, plain

Format = Literal["csv", "parquet"]
Type = Literal["text", "integer", "time", "truth"]
Table = Literal["positions", "in-transit", "crossings", "anomalies", "looks", "statement"]

COLUMNS: Mapping[Table, Mapping[str, Type]] = {
    "positions": {
        "city_id": "text",
        "peer_city_id": "text",
        "clearing_minutes": "integer",
        "in_transit_minutes": "integer",
        "in_transit": "integer",
        "overdue": "integer",
        "oldest_sent_at": "time",
        "returned": "integer",
    },
    "in-transit": {
        "transfer_id": "text",
        "city_id": "text",
        "peer_city_id": "text",
        "minutes": "integer",
        "levy_minutes": "integer",
        "sent_at": "time",
        "deadline": "time",
        "queries": "integer",
    },
    "crossings": {
        "transfer_id": "text",
        "from_city": "text",
        "to_city": "text",
        "minutes": "integer",
        "at": "time",
        "state": "text",
        "deadline": "time",
        "log_index": "integer",
    },
    "anomalies": {
        "rule": "text",
        "from_city": "text",
        "to_city": "text",
        "at": "time",
        "reason": "text",
        "figures": "text",
        "transfer_ids": "text",
    },
    "looks": {
        "number": "integer",
        "looked_at": "time",
        "actor_id": "text",
        "role": "text",
        "city_id": "text",
        "path": "text",
        "query": "text",
    },
    "statement": {
        "version": "integer",
        "posted_at": "time",
        "ledger_transfer_id": "text",
        "kind": "text",
        "minutes": "integer",
        "balance_minutes": "integer",
        "clearing_id": "text",
        "log_index": "integer",
    },
}

README = """Copass: {table}, made at {now}.

The folder checkpoints/ has the newest checkpoint that each city had signed when this was made: a
signed note (C2SP tlog-checkpoint) whose second line is how many entries the city's log had and
whose third is the root of their Merkle tree (RFC 6962), in base64.

A row with a log_index is told by the entry of that number in the log of its city (crossings: of
from_city; where that city keeps its book elsewhere, of to_city). To verify it without trusting
whoever sent you this file, ask for the evidence bundle of the same cities and run copass-verify on
it: the checkpoint in the bundle must be one that these go on to, or the same.
Minutes are whole; times are UTC.
"""


def to_archive(
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    as_: Format,
    checkpoints: Mapping[str, str],
    now: datetime,
) -> bytes:
    """A zip of the table, the checkpoints by city, and what they mean. `rows` have at least the
    columns of the table. Takes a while for many: not for the loop's own thread."""
    content = (
        to_parquet(table, rows, checkpoints) if as_ == "parquet" else to_csv(COLUMNS[table], rows)
    )
    files = {
        f"{table}.{as_}": content,
        "README.txt": README.format(table=table, now=now.isoformat(timespec="seconds")).encode(),
    }
    files |= {f"checkpoints/{city}.txt": note.encode() for city, note in checkpoints.items()}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name, now.timetuple()[:6])
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    return out.getvalue()


def to_csv(columns: Mapping[str, Type], rows: Sequence[Mapping[str, Any]]) -> bytes:
    """UTF-8 with a byte order mark; a cell that a spreadsheet would run is made harmless."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([cell(row[name]) for name in columns])
    return out.getvalue().encode("utf-8-sig")


def to_parquet(
    table: Table, rows: Sequence[Mapping[str, Any]], checkpoints: Mapping[str, str]
) -> bytes:
    """One row group and column types as declared; the checkpoints are in its metadata too."""
    # Imported here: no other request of the time bank needs its hundred megabytes.
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {
        "text": pa.string(),
        "integer": pa.int64(),
        "time": pa.timestamp("us", tz="UTC"),
        "truth": pa.bool_(),
    }
    columns = COLUMNS[table]
    schema = pa.schema(
        [pa.field(name, types[type_]) for name, type_ in columns.items()],
        metadata={"copass.checkpoints": orjson.dumps(dict(checkpoints))},
    )
    arrays = [
        pa.array([to_value(row[name], type_) for row in rows], types[type_])
        for name, type_ in columns.items()
    ]
    out = io.BytesIO()
    pq.write_table(pa.table(arrays, schema=schema), out, compression="zstd")
    return out.getvalue()


def to_value(value: Any, type_: Type) -> Any:
    """A value as its column has it: what is no text where a text is wanted becomes JSON."""
    if type_ != "text" or value is None or isinstance(value, str):
        return value
    simple = plain(value)
    return simple if isinstance(simple, str) else orjson.dumps(simple).decode()
