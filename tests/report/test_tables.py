"""The tables of a split: those of `table` and `markdown`, under the name of the split."""

from pathlib import Path
from typing import Any

from adapterbench.core.config import CompareParams
from adapterbench.report import table
from adapterbench.report.tables import write_tables


def test_both_protocols_have_a_csv_and_a_text_that_names_the_split(
    project: Path, variants: list[str], params: CompareParams
) -> None:
    scores, metrics, out = project / "results/scores", project / "metrics/train", project / "novel"
    rows: dict[str, dict[str, Any]] = {name: {} for name in variants}
    written = write_tables(scores, metrics, rows, [], params, "novel", out)
    assert [item.protocol for item in written] == ["image", "image_text"]
    stems = ("comparison", "comparison_image_text")
    names = {f"{stem}{end}" for stem in stems for end in (".csv", ".md")}
    assert {path.name for path in out.iterdir()} == {*names, "paired.csv"}
    assert table.read(out)["image"].variants == written[0].variants
    for stem in stems:
        assert "N = 40 novel items, K = 3 images" in (out / f"{stem}.md").read_text()
