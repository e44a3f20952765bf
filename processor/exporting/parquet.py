"""Parquet: typed columns in compressed row groups; moments are UTC, what repeats has dictionaries, JSON is text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, BinaryIO

from holdfast.processor.exporting.rows import Row
from holdfast.schemas.errors import ExportRefused

GROUP_ROWS = 50_000
GROUP_BYTES = 32 << 20
"""A row group is written when it has so many rows, or so many bytes of JSON: that is what is kept in memory."""

EVENTS = {
    "cursor": "text!",
    "epoch": "int32!",
    "xid": "int64!",
    "position": "int64!",
    "recorded_at": "moment!",
    "app": "word!",
    "workflow": "word!",
    "instance_id": "text!",
    "correlation_key": "text!",
    "version": "int64!",
    "type": "word!",
    "name": "word",
    "data": "text!",
    "metadata": "text!",
}
INSTANCES = {
    "instance_id": "text!",
    "app": "word!",
    "workflow": "word!",
    "program_hash": "word!",
    "correlation_key": "text!",
    "partition": "int32",
    "start_message_id": "text",
    "execution_status": "word!",
    "outcome": "word",
    "is_initialized": "bool!",
    "is_suspended": "bool!",
    "suspension_reason": "word",
    "suspension_exception_name": "word",
    "creation_time": "moment!",
    "last_updated_time": "moment!",
    "pending_timer": "moment",
    "active_bookmarks": "texts!",
    "current_machine": "word",
    "last_machine": "word",
    "lock_owner": "word",
    "lock_token": "int64",
    "lock_expiration": "moment",
    "version": "int64!",
    "parent_id": "text",
    "subflow": "word",
    "state_encoding": "word",
    "promoted": "text",
}
"""The columns of each kind of row: a ``word`` repeats and has a dictionary; with ``!`` it is never null."""


class Parquet:
    """Writes rows to a file; ``cursor`` is kept in the file's metadata as ``holdfast.cursor``.

    Raises ``ExportRefused`` where pyarrow is not installed.
    """

    def __init__(self, file: BinaryIO, columns: Mapping[str, str], cursor: str) -> None:
        try:
            # An optional extra, which nothing else needs and which has no types.
            self._arrow: Any = import_module("pyarrow")
            parquet: Any = import_module("pyarrow.parquet")
        except ImportError:
            raise ExportRefused("Parquet needs pyarrow: pip install 'holdfast[parquet]'") from None
        self._schema = _schema(self._arrow, columns).with_metadata({"holdfast.cursor": cursor})
        self._writer = parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._batches: list[Any] = []

    def write(self, rows: Sequence[Row]) -> None:
        """Take rows up, and write a row group if there are enough."""
        self._batches.append(self._arrow.RecordBatch.from_pylist(rows, schema=self._schema))
        if (
            sum(batch.num_rows for batch in self._batches) >= GROUP_ROWS
            or sum(batch.nbytes for batch in self._batches) >= GROUP_BYTES
        ):
            self._write_group()

    def close(self) -> None:
        """Write what is left, and the end of the file."""
        self._write_group()
        self._writer.close()

    def abandon(self) -> None:
        """Have nothing more written: the file is about to go."""
        self._writer.is_open = False

    def _write_group(self) -> None:
        if self._batches:
            table = self._arrow.Table.from_batches(self._batches).unify_dictionaries()
            self._writer.write_table(table, row_group_size=table.num_rows)
            self._batches.clear()


def _schema(arrow: Any, columns: Mapping[str, str]) -> Any:
    types = {
        "int32": arrow.int32(),
        "int64": arrow.int64(),
        "bool": arrow.bool_(),
        "text": arrow.string(),
        "texts": arrow.list_(arrow.string()),
        "word": arrow.dictionary(arrow.int32(), arrow.string()),
        "moment": arrow.timestamp("us", tz="UTC"),
    }
    return arrow.schema(
        arrow.field(name, types[kind.rstrip("!")], nullable=not kind.endswith("!")) for name, kind in columns.items()
    )
