"""The heat map: a cell an effect, with its number, weight and colour."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from adapterbench.report.heat_map import heat_map


def cells(ax: Axes) -> dict[tuple[str, int], tuple[str, bool]]:
    """Text of each cell, by row and column, and whether it is bold."""
    rows = [label.get_text() for label in ax.get_yticklabels()]
    return {
        (rows[round(text.get_position()[1])], round(text.get_position()[0])): (
            text.get_text(),
            text.get_fontweight() == "bold",
        )
        for text in ax.texts
    }


def test_a_cell_has_the_effect_in_bold_where_it_is_significant(by_layer: pd.DataFrame) -> None:
    alone, without, mean, below, *_ = heat_map(by_layer).axes
    found = cells(alone)
    assert len(found) == 3 * 3
    assert found["up.1", 0] == ("+2.0", True)
    assert found["up.1", 2] == ("+0.200", True)
    assert found["down.0", 1] == ("+0.000", False)
    assert [ax.get_title() for ax in (alone, without, mean)] == [
        "On alone",
        "Off alone",
        "Mean of both",
    ]
    joint = cells(below)
    assert joint["All layers", 2] == ("-1.000", True)
    assert joint["Preset style, other items", 1] == ("+0.000", False)


def test_colours_are_relative_to_the_largest_of_a_column(by_layer: pd.DataFrame) -> None:
    alone, *_, below = heat_map(by_layer).axes[:4]
    [image], [joint] = alone.get_images(), below.get_images()
    relative = image.get_array()
    assert relative is not None
    expected = np.array([[1, 0.1, 0.25], [0.05, 1, 1], [0, 0, 0]])
    assert np.asarray(relative) == pytest.approx(expected)
    assert (image.norm.vmin, image.norm.vmax) == (-1, 1)
    relative = joint.get_array()
    assert relative is not None
    assert relative[:, 2].tolist() == pytest.approx([-1, 1, 0, -1])
