"""The two stages as `dvc repro` runs them: from scores and images to tables and a page."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

STAGES = Path(__file__).parents[2] / "stages"
COMPARE = (
    "compare.py --scores results/scores --train-metrics metrics/train --out results "
    "--illustrations illustrations --metrics metrics/comparison.json"
)
FIGURES = (
    "figures.py --tables results --samples samples --illustrations illustrations "
    "--shards data/shards --curves metrics/train --out results/figures --report results/report.html"
)
PLATES = (
    "pareto",
    "intervals",
    "loss",
    "image_prompts",
    "multimodal_prompts",
    "text_prompts",
    "restyle",
    "concept",
    "base_models",
    "scale_sweep",
)


def run(command: str, project: Path) -> "subprocess.CompletedProcess[str]":
    script, *arguments = command.split()
    return subprocess.run(
        [sys.executable, str(STAGES / script), *arguments],
        cwd=project,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


def outputs(project: Path) -> dict[str, bytes]:
    made = [*(project / "results").glob("*.*"), *(project / "results/figures").glob("*")]
    made.append(project / "metrics/comparison.json")
    return {path.name: path.read_bytes() for path in made}


@pytest.mark.slow
def test_the_stages_make_tables_figures_and_a_self_contained_page(project: Path) -> None:
    for command in (COMPARE, FIGURES):
        done = run(command, project)
        assert done.returncode == 0, done.stderr
    made = outputs(project)
    assert set(made) == {
        "comparison.csv",
        "comparison.md",
        "comparison_image_text.csv",
        "comparison_image_text.md",
        "paired.csv",
        "pairs.csv",
        "report.html",
        "comparison.json",
        *(f"{name}.png" for name in PLATES),
    }

    numbers = json.loads(made["comparison.json"])
    table = pd.read_csv(project / "results/comparison.csv").set_index("method")
    assert numbers["ip_adapter"]["clip_i"] == table.loc["ip_adapter", "clip_i"]

    for name in PLATES:
        with Image.open(project / f"results/figures/{name}.png") as image:
            assert image.info["dpi"][0] >= 150 - 1
            assert set(image.info) == {"dpi"}

    tables = {name: data for name, data in made.items() if not name.endswith((".png", ".html"))}
    assert run(COMPARE, project).returncode == 0
    assert {name: outputs(project)[name] for name in tables} == tables

    html = made["report.html"].decode()
    links = re.findall(r'(?:src|href)\s*=\s*"([^"]{0,40})', html)
    sources = [link for link in links if not link.startswith("#")]  # the contents
    assert len(sources) == len(PLATES)
    assert all(source.startswith("data:image/webp;base64,") for source in sources)
    assert "http" not in html
    assert "url(" not in html
    assert "<script" not in html
    assert "&lt;script&gt;" in html


@pytest.mark.slow
def test_what_layers_carry_is_shown_where_it_was_measured(measured_project: Path) -> None:
    for command in (COMPARE, FIGURES):
        done = run(command, measured_project)
        assert done.returncode == 0, done.stderr
    made = outputs(measured_project)
    assert {"layers.ip_adapter.png", "presets.ip_adapter.png"} < set(made)
    html = made["report.html"].decode()
    assert 'id="layers"' in html
    assert "Presets by the rule: style: up.1; layout: mid." in html
    (measured_project / "illustrations/ip_adapter.layers/layers.csv").unlink()
    done = run(FIGURES, measured_project)
    assert done.stderr.strip() == (
        "error: illustrations/ip_adapter.layers/layers.csv is missing: make it again"
    )


def test_a_mistake_is_one_line(project: Path) -> None:
    (project / "results/scores/ip_adapter.parquet").unlink()
    done = run(COMPARE, project)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "error: results/scores/ip_adapter.parquet is missing: make it again"
    )
    assert not (project / "results/comparison.csv").exists()
