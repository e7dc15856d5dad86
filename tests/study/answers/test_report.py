"""The whole report from drawn scores: every number filled in, every figure there."""

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from adapterbench.core.config import CompareParams
from adapterbench.core.files import write_json
from adapterbench.formats.frames import write_frame
from adapterbench.formats.generated import Generated, Illustrations, write_images
from adapterbench.formats.image import to_png
from adapterbench.formats.pairs import Pair, list_path, tar_path, write_pairs
from adapterbench.study.answers.report import FIGURES, PAGE, TEXT, Params, write
from adapterbench.study.params import (
    ConfirmationParams,
    CurvesParams,
    DataSizesParams,
    RepeatedParams,
    ScreeningParams,
)
from adapterbench.study.runs.files import CHOSEN, REFERENCES, WORST, RatesParams

from .conftest import WriteRun
from .test_tables import REPORT

ROWS, SEEDS = ("original", "small"), (11, 12, 13)
PARAMS = Params(
    report=REPORT,
    rates=RatesParams(steps=10, learning_rates=(0.0005, 0.001)),
    screening=ScreeningParams(steps=100, seed=0),
    repeated=RepeatedParams(rows=("small",)),
    curves=CurvesParams(rows=("original", "network"), seeds=(1, 2), steps=(50, 100)),
    data_sizes=DataSizesParams(rows=("original", "network"), samples=(10, 20), steps=100, seed=0),
    confirmation=ConfirmationParams(rows=ROWS, seeds=SEEDS, steps=100),
    compare=CompareParams(bootstrap_samples=50, confidence=0.95, seed=0, labels={}),
)
KEYS = [f"key{number}" for number in range(4)]


def images(keys: list[str], path: Path) -> None:
    """Grey squares."""
    png = to_png(Image.new("RGB", (8, 8), "grey"))
    write_images(path, (Generated(key, 0, png) for key in keys))


def examples(folder: Path, row: str) -> None:
    """Pairs and images of a finalist."""
    layout, alone = Illustrations(folder / row), row == "text_only"
    given = ["text_only"] if alone else ["image_and_text", "image_only", "shuffled_image"]
    frames = []
    for protocol in ("restyle", "concept"):
        for name in given:
            images(KEYS, tar_path(layout.pairs, protocol, name))
        listed = [Pair(prompt=key, text="3d style", goal=f"goal{key}") for key in KEYS]
        write_pairs(list_path(layout.pairs, protocol), listed)
        for name in [*given, "real_goal", "real_copy"]:
            numbers = {"goal": 0.5, "copy": 0.4, "r_at_1": 0.3}
            index = {"protocol": protocol, "prompts": name, "key": KEYS}
            frames.append(pd.DataFrame({**index, **numbers}))
    write_frame(pd.concat(frames), layout.pairs_scores)
    if not alone:
        for tar in (CHOSEN, WORST):
            images(KEYS, folder / row / tar)
        images([*KEYS, *(f"goal{key}" for key in KEYS)], folder / row / REFERENCES)


@pytest.fixture
def study(write_run: WriteRun, floors: Path, workplace: Path) -> Path:
    """Folder `runs` of a whole study."""
    for row in ("original", "small", "network"):
        write_run("screening", row)
    write_run("repeated", "small")
    write_run("screening", "bad", diverged="the loss is not finite")
    for row in ("original", "network"):
        for seed in (1, 2):
            for steps in (50, 100):
                write_run("curves", row, seed, steps=steps)
        for samples in (10, 20):
            write_run("data_sizes", row, samples=samples)
    for row in ROWS:
        for seed in SEEDS:
            write_run("confirmation", row, seed)
    runs = workplace / "runs"
    (runs / "floors/validation").symlink_to(floors)
    for row in (*ROWS, "text_only"):
        examples(runs / "examples", row)
    return runs


@pytest.fixture
def plan(workplace: Path) -> Path:
    """What stage `plan` writes, as far as the report reads it."""
    groups = {name: {"runs": 4, "hours": 0.5} for name in ("rates", "screening")}
    original = {
        "samples": 2919397,
        "device": {"tflops": 989, "utilisation": 0.15},
        "training": {
            row: {"steps": 45000, "hours": 9.0, "trainable_params": size, "samples_seen": 2919397}
            for row, size in {"original": 22_000_000, "small": 11_000_000}.items()
        },
    }
    write_json(workplace / "plan.json", {"groups": groups, "original": original})
    return workplace / "plan.json"


def test_the_report_of_a_study(study: Path, plan: Path, workplace: Path) -> None:
    out = workplace / "report"
    write(PARAMS, study, plan, out)
    text = (out / TEXT).read_text()
    assert "`small` has 40 % of the trainable parameters and is not worse" in text
    assert re.search(r"\| bad \|.*diverged", text)
    assert "45,000 steps" in text
    assert "1 of 1 runs that were repeated" in text
    assert "nan" not in text
    shown = set(re.findall(rf"\({FIGURES}/(\w+\.\w+)\)", text))
    drawn = {path.name for path in (out / FIGURES).iterdir()}
    assert shown == drawn
    plots = {f"{name}.png" for name in ("sizes", "depth", "lengths", "amounts", "fit")}
    photos = drawn - plots
    assert {"chosen.jpg", "restyle.jpg", "worst_small.jpg"} < photos
    assert plots < drawn
    page = (out / PAGE).read_text()
    assert page.count("data:image/webp;base64,") == len(plots)
    assert page.count("data:image/jpeg;base64,") == len(photos)
    assert f'src="{FIGURES}/' not in page
    assert "<table>" in page
    screening = pd.read_csv(out / "screening.csv").set_index("row")
    assert screening.loc["bad", "diverged"] == "the loss is not finite"
    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    write(PARAMS, study, plan, out)
    assert {path: path.read_bytes() for path in out.rglob("*.*")} == before


def test_a_repeated_run_that_differs_is_said(study: Path, plan: Path, workplace: Path) -> None:
    (study / "repeated/small/curve.csv").write_text("step,loss\n1,9\n")
    write(PARAMS, study, plan, workplace / "report")
    assert "0 of 1 runs that were repeated" in (workplace / "report" / TEXT).read_text()


def test_no_finalist_within_the_margin_is_said(study: Path, plan: Path, workplace: Path) -> None:
    strict = REPORT.model_copy(update={"margin": 1e-4})
    write(replace(PARAMS, report=strict), study, plan, workplace / "report")
    assert "Not shown: no finalist with at most 50 %" in (workplace / "report" / TEXT).read_text()
