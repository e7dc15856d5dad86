"""Readers of the user's tables of images and captions: CSV, TSV, JSON, JSON lines, Parquet."""

import csv
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from adapterbench.core.documents import unique_keys
from adapterbench.core.errors import UserError

Row = dict[str, Any]
"""Values by column."""
ROWS_AT_ONCE = 1000
"""Rows of a Parquet file in memory; a row may hold an image."""


def read_table(path: Path) -> list[Row]:
    """The rows of a table.

    Raises:
        UserError: it cannot be read or has no rows.
    """
    try:
        rows = list(READERS[path.suffix.lower()](path))
    except (OSError, ValueError, RecursionError, csv.Error, pyarrow.ArrowException) as error:
        cause = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read ({cause}): correct the table") from error
    if not rows:
        raise UserError(f"{path} has no rows: set data.fetch.path to a table of your images")
    return rows


def delimited(path: Path, **dialect: Any) -> Iterator[Row]:
    """Rows of a text table with a header line; missing fields are empty."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file, strict=True, **dialect)
        columns = [name.strip() for name in next(lines, [])]
        unique_keys([(name, None) for name in columns if name])
        for fields in lines:
            if len(fields) > len(columns):
                raise ValueError(
                    f"line {lines.line_num} has {len(fields)} fields for {len(columns)} columns"
                )
            if fields:
                yield dict.fromkeys(columns, "") | dict(zip(columns, fields, strict=False))


def json_list(path: Path) -> Iterator[Row]:
    """Rows of a JSON list of objects."""
    rows = json.loads(path.read_bytes(), object_pairs_hook=unique_keys)
    if not isinstance(rows, list):
        raise ValueError("it is not a list of objects")
    yield from map(json_object, rows)


def json_lines(path: Path) -> Iterator[Row]:
    """Rows of a file with one JSON object per line."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield json_object(json.loads(line, object_pairs_hook=unique_keys))
                except (ValueError, RecursionError) as error:
                    raise ValueError(f"line {number}: {error}") from error


def json_object(value: Any) -> Row:
    """`value`, if it is an object."""
    if not isinstance(value, dict):
        raise ValueError(f"{str(value)[:40]!r} is not an object")
    return value


def parquet(path: Path) -> Iterator[Row]:
    """Rows of a Parquet file."""
    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(ROWS_AT_ONCE):
            yield from batch.to_pylist()


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".csv": delimited,
    # no quoting: a caption that begins with a quote would swallow the rows up to the next quote
    ".tsv": partial(delimited, delimiter="\t", quoting=csv.QUOTE_NONE),
    ".json": json_list,
    ".jsonl": json_lines,
    ".parquet": parquet,
}
"""Readers by the extension of the file."""
