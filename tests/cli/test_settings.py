from pathlib import Path
from typing import Any

import pytest
import yaml

from adapterbench.cli.settings import settings, variants
from adapterbench.core.errors import UserError

pytestmark = pytest.mark.usefixtures("in_project")


def read(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text())
    return loaded


def test_without_a_profile_the_file_counts_as_it_stands(tmp_path: Path) -> None:
    with settings(None, None) as path:
        assert path == Path("params.yaml")
    with settings(tmp_path / "mine.yaml", None) as path:
        assert path == tmp_path / "mine.yaml"


def test_a_profile_brings_all_that_it_composes() -> None:
    with settings(None, "emoji") as path:
        assert path.read_text() == Path("params.yaml").read_text()
    with settings(None, "sd15") as path:
        composed = read(path)
    assert composed["data"]["resolution"] == 512
    ranks = {row["rank"] for row in composed["variants"].values() if "rank" in row}
    assert ranks == {128}


def test_an_unknown_profile_is_one_line(tmp_path: Path) -> None:
    for params in (None, tmp_path / "mine.yaml"):
        with pytest.raises(UserError, match="no profile 'sd16'"), settings(params, "sd16"):
            pass


def test_over_a_given_file_it_sets_its_own_fields_alone(tmp_path: Path) -> None:
    mine = read(Path("params.yaml"))
    mine["variants"] = {"mine": {"projection": "linear", "attention": "append", "tokens": 1}}
    mine["train"]["steps"] = 7
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(mine))
    with settings(tmp_path / "mine.yaml", "sd15") as path:
        found = read(path)
    same = {"variants", "train", "sample", "compare"}
    assert {name: found[name] for name in same} == {name: mine[name] for name in same}
    assert found["data"] == {**mine["data"], "resolution": 512}
    assert found["encode"]["image_encoder"] == "ViT-B-32"
    assert found.keys() == mine.keys()


@pytest.mark.parametrize("rows", [None, [], {}, {"mine": 3}])
def test_rows_that_are_none_are_refused(rows: Any, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump({"variants": rows}))
    with pytest.raises(UserError, match=r"mapping.*variants|no variant|variants.mine must"):
        variants(path)
