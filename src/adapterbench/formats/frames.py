"""Tables of scores as Parquet files with page checksums."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from pyarrow import ArrowException
from pyarrow.parquet import ParquetFile

from adapterbench.core.errors import InputError, one_line
from adapterbench.core.files import publish


def write_frame(frame: pd.DataFrame, path: Path) -> None:
    """Write a table without its index."""
    with publish(path) as beside:
        frame.to_parquet(beside, index=False, write_page_checksum=True)


def read_frame(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read columns of a table.

    Raises:
        UserError: it is missing or damaged, or lacks a column.
    """
    try:
        with ParquetFile(path, page_checksum_verification=True) as file:
            # pandas' metadata on types has no checksum and is not needed
            frame = file.read().to_pandas(ignore_metadata=True)
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing", path) from error
    except (ValueError, OSError, ArrowException) as error:
        raise InputError(f"{path} is damaged ({one_line(error)})", path) from error
    if missing := [column for column in columns if column not in frame]:
        raise InputError(f"{path} lacks the column(s) {', '.join(missing)}", path)
    return frame[list(columns)]
