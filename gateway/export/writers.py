"""Files of rows: CSV by the standard library, Parquet by pyarrow. Each counts and hashes what it writes."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from gateway.errors import GatewayError
from gateway.export.columns import Column, Kind, Row

_GROUP = 65_536  # rows of a Parquet row group: what is in memory at most
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class MissingExtra(GatewayError):
    """A library that only this needs is not installed."""

    reason = "extra"


class Writer(Protocol):
    """One file in the making."""

    def write(self, row: Row) -> None: ...
    def close(self) -> None:
        """Everything is on the disk."""


class HashedFile(io.RawIOBase):
    """A new file, written from front to back; knows its size and SHA-256."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("xb")
        self._digest = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data)
        self._file.write(view)
        self._digest.update(view)
        self.size += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        return self.size

    def close(self) -> None:
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        super().close()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


class CsvWriter:
    """RFC 4180 with a head; nothing where nothing is known, times in ISO 8601."""

    def __init__(self, file: HashedFile, columns: Sequence[Column]) -> None:
        self._text = io.TextIOWrapper(io.BufferedWriter(file), encoding="utf-8", newline="")
        self._csv = csv.writer(self._text)
        self._cells = [(place, _CELLS[column.kind]) for place, column in enumerate(columns) if column.kind in _CELLS]
        self._csv.writerow([column.name for column in columns])

    def write(self, row: Row) -> None:
        cells = list(row)
        for place, text in self._cells:
            if cells[place] is not None:
                cells[place] = text(cells[place])
        self._csv.writerow(cells)

    def close(self) -> None:
        self._text.close()


class ParquetWriter:
    """Compressed by zstd; words as dictionaries, times as UTC timestamps of microseconds."""

    def __init__(self, file: HashedFile, columns: Sequence[Column]) -> None:
        self._arrow, parquet = _pyarrow()
        self._columns = columns
        self._schema = arrow_schema(columns)
        self._file = file
        self._rows: list[Row] = []
        self._parquet = parquet.ParquetWriter(file, self._schema, compression="zstd")

    def write(self, row: Row) -> None:
        self._rows.append(row)
        if len(self._rows) == _GROUP:
            self._flush()

    def close(self) -> None:
        try:
            if self._rows:
                self._flush()
            self._parquet.close()
        finally:
            self._file.close()

    def _flush(self) -> None:
        columns = zip(self._columns, self._schema, zip(*self._rows, strict=True), strict=True)
        arrays = [
            self._arrow.array(_arrow_values(column.kind, values), field.type) for column, field, values in columns
        ]
        self._parquet.write_batch(self._arrow.record_batch(arrays, schema=self._schema))
        self._rows.clear()


FORMATS: dict[str, type[CsvWriter] | type[ParquetWriter]] = {"csv": CsvWriter, "parquet": ParquetWriter}


def arrow_schema(columns: Iterable[Column]) -> Any:
    """How a table looks in Parquet; what columns mean and their units are in the fields' metadata."""
    arrow, _ = _pyarrow()
    types = {
        "integer": arrow.int64(),
        "number": arrow.float64(),
        "flag": arrow.bool_(),
        "time": arrow.timestamp("us", tz="UTC"),
        "word": arrow.dictionary(arrow.int32(), arrow.string()),
        "text": arrow.string(),
        "hash": arrow.string(),
        "json": arrow.string(),
    }
    return arrow.schema(
        arrow.field(one.name, types[one.kind], metadata={"about": one.about, "unit": one.unit}) for one in columns
    )


def iso(at: int) -> str:
    """A time in microseconds since the epoch, as ISO 8601 in UTC with all six digits."""
    seconds, rest = divmod(at, 1_000_000)
    return f"{_second(seconds)}.{rest:06d}Z"


@lru_cache(maxsize=4096)
def _second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")


def _arrow_values(kind: Kind, values: tuple[Any, ...]) -> Iterable[Any]:
    if kind == "hash":
        return [None if value is None else value.hex() for value in values]
    if kind == "flag":
        return [None if value is None else bool(value) for value in values]
    return values


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra("Parquet needs pyarrow: pip install 'ab-gateway[parquet]', or --format csv") from error
    return pyarrow, pyarrow.parquet


def _flag(value: int) -> str:
    return "true" if value else "false"


_CELLS: dict[Kind, Any] = {"time": iso, "hash": bytes.hex, "flag": _flag}
