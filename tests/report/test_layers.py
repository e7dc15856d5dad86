"""Effects of layers and the presets that follow, from differences whose answer is known."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from adapterbench.core.errors import UserError
from adapterbench.report import layers
from adapterbench.report.layers import presets, short_names

from .conftest import NOISE, N, layers_table


def test_effects_are_means_with_intervals_and_shares(by_layer: pd.DataFrame) -> None:
    rows = by_layer[(by_layer["layer"] == "up.1.attn") & (by_layer["effect"] == "mean")]
    by_aspect = rows.set_index("aspect")
    assert list(by_aspect["difference"]) == pytest.approx([2.0, 0.1, 0.2])
    assert list(by_aspect["share"])[:2] == pytest.approx([2 / 4, 0.1 / 2])
    assert by_aspect["share"].isna().tolist() == [
        False,
        False,
        True,
    ]  # of a whole that is not above 0
    error = 1.96 * NOISE.std(axis=0, ddof=1) / np.sqrt(N)
    assert list(by_aspect["hi"] - by_aspect["difference"]) == pytest.approx(error, rel=0.25)
    assert list(by_aspect["difference"] - by_aspect["lo"]) == pytest.approx(error, rel=0.25)
    assert set(by_layer["n"]) == {N}


def test_a_preset_has_the_layers_that_carry_its_aspect_more_than_the_other() -> None:
    assert presets(layers_table()) == {"style": ["up.1.attn"], "layout": ["mid.attn"]}
    # of the strongest layer's, a has 0.5 in colour and 0.9 in shape; b's colour is not significant
    rows = {"c.attn": (2.0, 0.1, 0), "a.attn": (1.0, 0.9, 0), "d.attn": (0.1, 1.0, 0)}
    found = presets(layers_table(rows | {"b.attn": (0.01, -0.5, 0)}))
    assert found == {"style": ["c.attn"], "layout": ["a.attn", "d.attn"]}
    assert presets(layers_table({"a.attn": (1.0, -0.5, 0)})) == {"style": ["a.attn"]}
    assert presets(layers_table({"a.attn": (0.0, 0.0, 1.0)})) == {}


def test_the_table_is_read_as_it_was_written(by_layer: pd.DataFrame, tmp_path: Path) -> None:
    layers.write(by_layer, tmp_path / "it.layers")
    path = tmp_path / "it.layers/layers.csv"
    written = by_layer.reset_index(drop=True)
    pd.testing.assert_frame_equal(layers.read_table(path.parent), written)
    lines = path.read_text().splitlines()
    assert lines[0].split(",") == layers.COLUMNS
    damages = {
        "is damaged": [line.replace(",0.100000,", ",much,", 1) for line in lines],
        "lacks an effect": [lines[0], *(f"{line}e" for line in lines[1:])],
        "lacks share": [line.rpartition(",")[0] for line in lines],
        "lacks an effect ": lines[:-1],
        "lacks an effect  ": lines[:1],
    }
    for message, damaged in damages.items():
        path.write_text("\n".join(damaged) + "\n")
        with pytest.raises(UserError, match=rf"layers\.csv {message.strip()}") as error:
            layers.read_table(path.parent)
        assert "\n" not in str(error.value)
    path.unlink()
    with pytest.raises(UserError, match=r"layers\.csv is missing"):
        layers.read_table(path.parent)


def test_tables_are_read_of_the_variants_that_the_parameters_name(
    by_layer: pd.DataFrame, tmp_path: Path
) -> None:
    layers.write(by_layer, layers.folder(tmp_path, "it"))
    parameters = tmp_path / "params.yaml"
    for names in ([], ["it"]):
        parameters.write_text(f"layers: {{variants: {names}, items: 4}}")
        assert list(layers.read(tmp_path, parameters)) == names
    parameters.write_text("layers: {variants: [other], items: 4}")
    with pytest.raises(UserError, match=r"other\.layers/layers\.csv is missing"):
        layers.read(tmp_path, parameters)


def test_names_are_short_and_still_differ() -> None:
    end = "attentions.0.transformer_blocks.0.attn2"
    paths = [f"down_blocks.1.{end}", f"mid_block.{end}"]
    assert list(short_names(paths).values()) == ["down_blocks.1", "mid_block"]
    assert list(short_names(paths[:1]).values()) == paths[:1]


def test_a_sheet_has_the_layers_then_all_and_the_presets(by_layer: pd.DataFrame) -> None:
    sheet = layers.sheet(by_layer)
    assert [row[0] for row in sheet.rows] == [
        *("up.1", "mid", "down.0"),
        *("All layers", "All layers, other items"),
        *("Preset style, other items", "Preset layout, other items"),
    ]
    assert sheet.baselines == 4
    assert sheet.rows[0][1] == str(N)
    assert sheet.rows[0][2].startswith("+2.0 [+1.")
    assert sheet.rows[3][4].startswith("-1.000 [-1.")
    assert layers.sentence(by_layer) == "Presets by the rule: style: up.1; layout: mid."
    nothing = layers_table({"a.x": (0.0, 0.0, 0.0), "b.x": (0.0, 0.0, 0.0)})
    assert layers.sentence(nothing) == "Presets by the rule: style: no layer; layout: no layer."
