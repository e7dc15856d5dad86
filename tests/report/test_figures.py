"""Figures: no clipped or overlapping text, the same bytes twice, readable sizes."""

import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from adapterbench.core.config import CompareParams, IllustrateParams, load_params
from adapterbench.core.errors import UserError
from adapterbench.formats.generated import decode_images, read_names
from adapterbench.report import figures
from adapterbench.report.illustrations import bases_grid, prompts_grid, read_sweep
from adapterbench.report.methods import (
    BASELINES,
    CEILINGS,
    STUDY,
    TRAINING_FREE,
    WITHOUT_ADAPTER,
    label,
)
from adapterbench.report.metrics import SCORES
from adapterbench.report.sweep import sweep_figure
from adapterbench.report.table import Comparison, compare


@pytest.fixture
def both(finished: Path, variants: list[str], params: CompareParams) -> list[Comparison]:
    folders = finished / "results/scores", finished / "metrics/train"
    return [
        compare(*folders, {v: {} for v in variants}, [], p, params) for p in ("image", "image_text")
    ]


@pytest.fixture
def with_training_free(
    project: Path, variants: list[str], params: CompareParams
) -> list[Comparison]:
    """Both protocols with the methods that need no training, whose scores are two variants'."""
    scores = project / "results/scores"
    for name, variant in zip(TRAINING_FREE, variants, strict=False):
        shutil.copyfile(scores / f"{variant}.parquet", scores / f"{name}.parquet")
    rows: dict[str, Any] = {variant: {} for variant in variants}
    given = scores, project / "metrics/train", rows, list(TRAINING_FREE)
    return [compare(*given, protocol, params) for protocol in ("image", "image_text")]


def check_text(figure: Figure, path: Path) -> None:
    """Save the figure, then require all that is drawn, texts above all, inside the canvas."""
    figures.save(figure, path)
    width, height = figure.get_size_inches()
    drawn = figure.get_tightbbox()
    assert drawn.x0 >= -0.01
    assert drawn.y0 >= -0.01
    assert drawn.x1 <= width + 0.01
    assert drawn.y1 <= height + 0.01
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert np.asarray(image.convert("L")).std() > 5


def test_pareto(both: list[Comparison], tmp_path: Path) -> None:
    figure = figures.pareto(both[0])
    check_text(figure, tmp_path / "a.png")
    for ax in figure.axes:
        boxes = sorted((t.get_window_extent() for t in ax.texts), key=lambda b: b.y0)
        assert len(boxes) == len(BASELINES)
        assert all(low.y1 <= high.y0 for low, high in pairwise(boxes))
    figures.save(figures.pareto(both[0]), tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_methods_without_training_are_lines_like_floors(
    with_training_free: list[Comparison], tmp_path: Path
) -> None:
    image = with_training_free[0]
    figure = figures.pareto(image)
    check_text(figure, tmp_path / "pareto.png")
    for ax, metric in zip(figure.axes, SCORES, strict=True):
        grey = [line for line in ax.lines if line.get_color() == figures.GREY]
        heights = {float(np.asarray(line.get_ydata())[0]) for line in grey}
        assert {image.row(method)[metric.key] for method in TRAINING_FREE} <= heights
        assert len(ax.texts) == len(WITHOUT_ADAPTER)
    check_text(figures.forest(with_training_free), tmp_path / "forest.png")


def test_the_frontier_by_hand() -> None:
    points = [(2.0, 0.5), (1.0, 0.4), (3.0, 0.5), (4.0, 0.7), (2.0, 0.3)]
    assert figures.frontier(points) == [(1.0, 0.4), (2.0, 0.5), (4.0, 0.7)]


def test_ticks_stand_where_the_points_are(both: list[Comparison]) -> None:
    ax = figures.pareto(both[0]).axes[0]
    sizes = {row["trainable_params"] for row in both[0].rows.to_dict("records")}
    assert set(ax.get_xticks()) <= sizes
    assert len(ax.get_xticks()) > 1


def test_a_variant_keeps_its_colour_and_marker_whatever_others_there_are() -> None:
    names = [*STUDY, "mine"]
    drawn = figures.looks(names)
    assert figures.looks(names[::-1]) == drawn
    assert figures.looks(["mine", names[2]]) == {name: drawn[name] for name in ("mine", names[2])}
    assert len(set(drawn.values())) == len(names)


def test_forest_shows_every_method_under_both_protocols(
    both: list[Comparison], tmp_path: Path
) -> None:
    figure = figures.forest(both)
    check_text(figure, tmp_path / "a.png")
    assert [ax.get_title() for ax in figure.axes] == [
        f"{metric}, {protocol}"
        for protocol in ("image prompt alone", "image prompt and caption")
        for metric in ("CLIP-T", "CLIP-I", "Neutral-I", "R@1")
    ]
    for ax in figure.axes:
        assert len(ax.containers) + len(ax.texts) == len(both[0].rows)


def test_a_far_ceiling_does_not_flatten_the_rest(both: list[Comparison], tmp_path: Path) -> None:
    near = both[0].rows.copy()
    rest = ~near["method"].isin(CEILINGS)
    columns = ["clip_i", "clip_i_lo", "clip_i_hi"]
    near.loc[rest, columns] = near.loc[rest, columns] * 0.1 + 0.45
    comparison = Comparison(protocol="image", rows=near, paired=both[0].paired)
    figure = figures.forest([comparison])
    check_text(figure, tmp_path / "a.png")
    panel = figure.axes[1]
    assert panel.get_xlim()[1] < 0.7
    values = near.set_index("method").loc[list(CEILINGS), "clip_i"]
    assert [text.get_text() for text in panel.texts] == [f"{value:.3f} →" for value in values]


def test_losses(finished: Path, variants: list[str], tmp_path: Path) -> None:
    curves = {v: figures.read_curve(finished / f"metrics/train/{v}.csv") for v in variants}
    check_text(figures.losses(curves, label), tmp_path / "a.png")
    check_text(
        figures.losses({"short": pd.DataFrame({"step": [1], "loss": [0.1]})}, label),
        tmp_path / "b.png",
    )


@pytest.mark.parametrize(
    "text", ["", "step\n1\n", "step,loss\n0,0.5\n1,0.x\n", "step,loss\n1,low\n"]
)
def test_a_bad_loss_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(UserError, match=r"x\.csv"):
        figures.read_curve(tmp_path / "x.csv")


def test_grid_keeps_images_and_wraps_texts(tmp_path: Path) -> None:
    red, blue = Image.new("RGB", (64, 64), "red"), Image.new("RGB", (64, 64), "blue")
    figure = figures.grid(
        {
            "Image prompt": [red, blue],
            "Text prompt": ["it costs $5 and $6 " * 12, "Incomprehensibilities_of_one_word"],
            "a_long_key_of_a_user_rank_64_tokens_16": [blue, red],
        }
    )
    check_text(figure, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    middle = pixels.shape[1] // 6, pixels.shape[0] // 3
    assert tuple(pixels[middle[1] + 40, middle[0]]) == (255, 0, 0)
    assert tuple(pixels[-100, middle[0]]) == (0, 0, 255)
    assert tuple(pixels[-100, -100]) == (255, 0, 0)


def test_text_prompts_stand_with_every_method(finished: Path, variants: list[str]) -> None:
    columns = prompts_grid(params_of(finished), *illustrated(finished, variants), label)
    assert list(columns) == ["Image prompt", "Text prompt", *map(label, variants), "Text only"]
    assert columns["Text prompt"] == [f"text number {n} that costs $5" for n in range(3)]
    assert {len(cells) for cells in columns.values()} == {3}


def test_each_image_prompt_has_a_row_a_base(finished: Path, variants: list[str]) -> None:
    folder, _, shards = illustrated(finished, variants)
    columns = bases_grid(folder, finished / "samples", variants, shards, label)
    assert columns["Base model"] == ["as trained on", "line art"] * 3
    assert [bool(cell) for cell in columns["Image prompt"]] == [True, False] * 3
    for method, protocol in ((variants[0], "image"), ("text_only", "image_text")):
        own, other = (
            decode_images(tar, list(figures_keys(folder, variants)))
            for tar in (
                finished / "samples" / method / f"{protocol}.tar",
                folder / method / "bases/line_art.tar",
            )
        )
        cells = columns[label(method)]
        assert [list(cells[::2]), list(cells[1::2])] == [own, other]


def figures_keys(folder: Path, variants: list[str]) -> list[str]:
    """Keys of the image prompts."""
    return [key for key, _ in read_names(folder / variants[0] / "prompts.tar")]


def test_the_sweep_shows_images_and_means(
    finished: Path, variants: list[str], tmp_path: Path
) -> None:
    sweep = read_sweep(params_of(finished), *illustrated(finished, variants))
    means = sweep.scores[variants[0]]
    assert list(means["scale"]) == [0, 0.5, 1.5]
    assert means["clip_i"].tolist() == pytest.approx([0, 0.5 / 3, 0.5])
    assert means["clip_t"].is_monotonic_decreasing
    figure = sweep_figure(sweep, label)
    check_text(figure, tmp_path / "a.png")
    titles = [ax.get_title() for ax in figure.subfigs[0].axes if ax.get_title()]
    assert titles == ["λ = 0", "λ = 0.5", "λ = 1.5"]
    curves = figure.subfigs[1].axes[0]
    assert len(curves.lines) == len(curves.collections) == len(variants)
    assert curves.get_title().endswith("large mark: λ = 1.5")


def params_of(project: Path) -> IllustrateParams:
    return load_params(IllustrateParams, "illustrate", project / "params.yaml")


def illustrated(project: Path, variants: list[str]) -> tuple[Path, list[str], Path]:
    return project / "illustrations", variants, project / "data/shards"
