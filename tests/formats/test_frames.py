"""Tables of scores: read as written, and no damage goes unnoticed."""

import random
from pathlib import Path

import pandas as pd
import pytest

from adapterbench.core.errors import UserError
from adapterbench.formats.frames import read_frame, write_frame

FRAME = pd.DataFrame(
    {
        "key": [f"google-{n:x}" for n in range(40)],
        "k": list(range(40)),
        "score": [n / 41 for n in range(39)] + [float("nan")],
        "hit": [n % 3 == 0 for n in range(40)],
    }
)


def test_columns_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_frame(FRAME, tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(read_frame(tmp_path / "a.parquet", list(FRAME.columns)), FRAME)
    assert list(read_frame(tmp_path / "a.parquet", ["hit", "key"])) == ["hit", "key"]


def test_a_table_without_checksums_is_read_too(tmp_path: Path) -> None:
    FRAME.to_parquet(tmp_path / "a.parquet", index=False)
    pd.testing.assert_frame_equal(read_frame(tmp_path / "a.parquet", list(FRAME.columns)), FRAME)


def test_no_flipped_bit_changes_a_value(tmp_path: Path) -> None:
    path, draw = tmp_path / "a.parquet", random.Random(20261126)
    write_frame(FRAME, path)
    whole, refused = path.read_bytes(), 0
    for at in range(0, len(whole), 5):
        flipped = whole[at] ^ 1 << draw.randrange(8)
        path.write_bytes(whole[:at] + bytes([flipped]) + whole[at + 1 :])
        try:
            read = read_frame(path, list(FRAME.columns))
        except UserError:
            refused += 1
        else:
            pd.testing.assert_frame_equal(read, FRAME)
    assert refused > len(whole) / 5 / 2


def test_what_is_missing_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.parquet is missing: make it"):
        read_frame(tmp_path / "a.parquet", [])
    write_frame(FRAME, tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"lacks the column\(s\) x, y: make it"):
        read_frame(tmp_path / "a.parquet", ["key", "x", "y"])
