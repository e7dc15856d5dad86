"""The page: everything inside it, and nothing that a caption says is run."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from adapterbench.core.config import CompareParams
from adapterbench.report import page
from adapterbench.report.measured import MeasuredOn
from adapterbench.report.page import CaptionedFigure
from adapterbench.report.pairs import compare_pairs
from adapterbench.report.table import compare

EVIL = "<script>alert('x')</script>"


def test_page_is_escaped_and_self_contained(
    project: Path,
    variants: list[str],
    params: CompareParams,
    measured: MeasuredOn,
    by_layer: pd.DataFrame,
) -> None:
    Image.new("RGB", (4, 4), "red").save(project / "image_prompts.png")
    figure = CaptionedFigure(project / "image_prompts.png", f'a "quoted" {EVIL}', f'"{EVIL}')
    folders = project / "results/scores", project / "metrics/train"
    comparisons = {
        p: compare(*folders, {v: {} for v in variants}, [], p, params)
        for p in ("image", "image_text")
    }
    answers = compare_pairs(project / "illustrations", variants, params)
    text = page.render(
        comparisons,
        answers,
        {"ip_adapter": by_layer},
        measured.model_copy(update={"data": EVIL}),
        [figure],
        {"Revision": EVIL},
        {"set": EVIL},
    )
    assert "<script" not in text
    assert text.count("&lt;script&gt;alert") == 5
    assert text.count('src="data:image/webp;base64,') == text.count("src=") == 1
    assert "<link" not in text
    assert "@import" not in text
    for heading in ("What was measured", "Paired differences", "Provenance"):
        assert heading in text
    assert text == page.render(
        comparisons,
        answers,
        {"ip_adapter": by_layer},
        measured.model_copy(update={"data": EVIL}),
        [figure],
        {"Revision": EVIL},
        {"set": EVIL},
    )
    sections = ("Prompts with a right answer", "What each layer carries")
    assert all(section in text for section in sections)
    assert "Presets by the rule: style: up.1; layout: mid." in text
    without = page.render(comparisons, answers[:0], {}, measured, [figure], {}, {})
    assert not any(section in without for section in sections)


def test_what_a_reader_needs_first_stands_first(
    project: Path, variants: list[str], params: CompareParams, measured: MeasuredOn
) -> None:
    for name in ("pareto", "image_prompts"):
        Image.new("RGB", (4, 4), "red").save(project / f"{name}.png")
    figures = [
        CaptionedFigure(project / f"{n}.png", f"caption of {n}", n)
        for n in ("pareto", "image_prompts")
    ]
    folders = project / "results/scores", project / "metrics/train"
    rows: dict[str, dict[str, Any]] = {v: {} for v in variants}
    comparisons = {p: compare(*folders, rows, [], p, params) for p in ("image", "image_text")}
    answers = compare_pairs(project / "illustrations", variants, params)
    text = page.render(comparisons, answers, {}, measured, figures, {}, {})
    order = ["follows the image prompt best", "caption of image_prompts", "<nav", "<table"]
    places = [text.index(part) for part in [*order, "caption of pareto"]]
    assert places == sorted(places)
    targets = re.findall(r'href="#([^"]+)"', text)
    assert targets
    assert all(text.count(f'id="{target}"') == 1 for target in targets)
    assert text.count("<b>0.") >= 4  # the best of each score
