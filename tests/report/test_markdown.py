"""The Markdown file: columns of the original table, and alarms."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from adapterbench.core.config import CompareParams
from adapterbench.report import markdown
from adapterbench.report.measured import MeasuredOn
from adapterbench.report.sheets import Sheet
from adapterbench.report.table import compare


def test_the_file(
    project: Path,
    variants: list[str],
    params: CompareParams,
    measured: MeasuredOn,
    write_scores: Callable[..., None],
) -> None:
    write_scores(project / "flat", {"my_sixth_row": 0.0})
    rows: dict[str, dict[str, Any]] = {name: {} for name in variants}
    rows["ip_adapter_lora"] = {"train": {"steps": 300, "learning_rate": 0.001}}
    comparison = compare(project / "flat", project / "metrics/train", rows, [], "image", params)
    markdown.write(comparison, measured, project)
    text = (project / "comparison.md").read_text()
    lines = text.splitlines()
    assert lines[0] == "# Comparison: image prompt alone"
    scores = "CLIP-T | CLIP-I | Neutral-I | R@1 | Diversity | CLIPScore"
    assert lines[2].startswith("IP-Adapter follows the image prompt best: CLIP-I 0.7")
    assert lines[4] == f"| Method | Trainable parameters | {scores} |"
    assert lines[6].startswith("| Uni-ControlNet (Global) | 11.80 M | 0.1")
    assert lines[10].startswith("| IP-Adapter | 20.75 M | **0.1")
    assert lines[8].startswith("| IP-Adapter LoRA † | 14.31 M | 0.1")
    dagger = (
        "† trained with other settings than the other variants. "
        "IP-Adapter LoRA: steps 300, learning_rate 0.001."
    )
    assert dagger in lines
    assert lines[11].startswith("| my_sixth_row | 45,000 | ")
    assert '\n- **DID NOT LEARN: my_sixth_row: its CLIP-I does not exceed "no prompt" (' in text
    assert "- Evaluator (CLIP-T, CLIP-I): scoring clip" in text
    assert "- Neutral evaluator (the other scores): neutral network" in text
    assert "chance of R@1: 1/40 = 0.025" in text
    assert "N = 40 validation items, K = 3 images" in text
    assert "nan" not in text


def test_a_bar_in_a_name_does_not_end_its_cell() -> None:
    assert Sheet(["a", "b"], [["x|y", "1"]]).markdown().splitlines()[-1] == "| x\\|y | 1 |"
