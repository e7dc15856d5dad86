"""The page: everything inside it, and nothing that a caption says is run."""

from pathlib import Path

from PIL import Image

from adapterbench.core.config import CompareParams
from adapterbench.report import page
from adapterbench.report.measured import MeasuredOn
from adapterbench.report.page import Plate
from adapterbench.report.pairs import compare_pairs
from adapterbench.report.table import compare

EVIL = "<script>alert('x')</script>"


def test_page_is_escaped_and_self_contained(
    project: Path, variants: list[str], params: CompareParams, measured: MeasuredOn
) -> None:
    Image.new("RGB", (4, 4), "red").save(project / "p.png")
    folders = project / "results/scores", project / "metrics/train"
    comparisons = {p: compare(*folders, variants, p, params) for p in ("image", "image_text")}
    answers = compare_pairs(project / "illustrations", variants, params)
    text = page.render(
        comparisons,
        answers,
        measured.model_copy(update={"data": EVIL}),
        [Plate(project / "p.png", f'a "quoted" {EVIL}')],
        {"Revision": EVIL},
        {"set": EVIL},
    )
    assert "<script" not in text
    assert text.count("&lt;script&gt;alert") == 5
    assert text.count('src="data:image/png;base64,') == text.count("src=") == 1
    assert "<link" not in text
    assert "@import" not in text
    for heading in ("What was measured", "In plain words", "Paired differences", "Provenance"):
        assert heading in text
    assert text == page.render(
        comparisons,
        answers,
        measured.model_copy(update={"data": EVIL}),
        [Plate(project / "p.png", f'a "quoted" {EVIL}')],
        {"Revision": EVIL},
        {"set": EVIL},
    )
    assert "Prompts with a right answer" in text
    without = page.render(comparisons, answers[:0], measured, [], {}, {})
    assert "Prompts with a right answer" not in without
