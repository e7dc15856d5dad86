"""Prompts with a right answer: what is written is read back, and nothing else is taken for it."""

import json
from pathlib import Path
from typing import Any

import pytest

from adapterbench.core.errors import UserError
from adapterbench.formats.pairs import Pair, read_pairs, write_pairs

ROW = {"prompt": "google-1f984", "text": "3d style", "goal": "fluent-1f984"}


def test_pairs_are_read_back(tmp_path: Path) -> None:
    write_pairs(tmp_path / "restyle.json", [Pair(**ROW)])
    assert json.loads((tmp_path / "restyle.json").read_text()) == [ROW]
    assert read_pairs(tmp_path / "restyle.json") == [Pair(**ROW)]


@pytest.mark.parametrize(
    "content", [None, [], {}, ROW, [[]], [{**ROW, "goal": 5}], [{"prompt": "a", "text": "b"}]]
)
def test_another_structure_is_one_line(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "restyle.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"restyle.json is not a list of .* \(.*\): make it again$"):
        read_pairs(path)
