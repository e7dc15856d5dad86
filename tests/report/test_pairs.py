"""The table of prompts with a right answer: values, pairing, sentences."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from adapterbench.core.config import CompareParams
from adapterbench.core.errors import UserError
from adapterbench.formats.pairs import PROTOCOLS
from adapterbench.report import pairs
from adapterbench.report.methods import label

Change = Callable[[pd.DataFrame], pd.DataFrame]


@pytest.fixture
def folder(project: Path) -> Path:
    return project / "illustrations"


def edit(path: Path, change: Change) -> None:
    change(pd.read_parquet(path)).to_parquet(path)


def row(table: pd.DataFrame, protocol: str, method: str, prompts: str) -> pd.Series:
    wanted = (protocol, method, prompts)
    return table.set_index(["protocol", "method", "prompts"]).loc[wanted]  # type: ignore[index]  # of three levels


def test_rows_are_those_of_the_adapters_and_what_needs_none(
    folder: Path, variants: list[str], params: CompareParams
) -> None:
    table = pairs.compare_pairs(folder, variants, params)
    assert list(table) == pairs.COLUMNS
    for protocol in PROTOCOLS:
        part = table[table["protocol"] == protocol]
        assert len(part) == 3 * len(variants) + 3
        closing = part[part["method"] == "text_only"]["prompts"].tolist()
        assert closing == ["text_only", "real_copy", "real_goal"]
        assert part["method"].iloc[-1] == "text_only"
    assert set(table["n"]) == {5}


def test_means_and_paired_leads_on_the_goal(
    folder: Path, variants: list[str], params: CompareParams
) -> None:
    def reverse(frame: pd.DataFrame) -> pd.DataFrame:
        return frame[::-1]  # the order of rows pairs nothing

    edit(folder / "text_only/pairs.parquet", reverse)

    def unequal(frame: pd.DataFrame) -> pd.DataFrame:
        both = frame["prompts"] == "image_and_text"
        return frame.assign(
            goal=frame["goal"] + np.where(both & (frame["key"] == "set-0001"), 0.4, 0)
        )

    edit(folder / "ip_adapter_mlp/pairs.parquet", unequal)
    table = pairs.compare_pairs(folder, variants, params)
    plain = row(table, "restyle", "ip_adapter", "image_and_text")
    assert plain["goal"] == pytest.approx(0.32)  # 0.3 + 0 / 20 + the mean of n / 100
    assert plain["r_at_1"] == pytest.approx(0.2)
    # the text alone: 0.3 + 6 / 20 - 0.1, item by item the same distance
    leads = [plain[f"over_text_only{end}"] for end in ("", "_lo", "_hi")]
    assert leads == pytest.approx([-0.2] * 3)
    assert plain["over_image_only"] == pytest.approx(0.1)
    assert plain["over_shuffled_image"] == pytest.approx(0.1)
    spread = row(table, "restyle", "ip_adapter_mlp", "image_and_text")
    assert spread["over_image_only"] == pytest.approx(0.1 + 0.4 / 5)
    draws = np.random.default_rng(params.seed).integers(0, 5, (params.bootstrap_samples, 5))
    ends = np.quantile([0.4 * (draw == 1).mean() for draw in draws], [0.025, 0.975]) + 0.1
    found = [spread["over_image_only_lo"], spread["over_image_only_hi"]]
    assert found == pytest.approx(ends, abs=1e-6)
    alone = row(table, "restyle", "ip_adapter", "image_only")
    assert np.isnan(alone["over_text_only"])


def test_what_is_written_is_read_back(
    folder: Path, variants: list[str], params: CompareParams, tmp_path: Path
) -> None:
    table = pairs.compare_pairs(folder, variants, params)
    pairs.write(table, tmp_path / "out")
    pd.testing.assert_frame_equal(pairs.read(tmp_path / "out"), table)


def test_nothing_drawn_is_an_empty_table(
    variants: list[str], params: CompareParams, tmp_path: Path
) -> None:
    table = pairs.compare_pairs(tmp_path, variants, params)
    pairs.write(table, tmp_path)
    assert (tmp_path / pairs.FILE).read_text() == ",".join(pairs.COLUMNS) + "\n"
    assert pairs.read(tmp_path).empty


def test_sheet_and_sentences(folder: Path, variants: list[str], params: CompareParams) -> None:
    edit(folder / "ip_adapter_mlp/pairs.parquet", lambda f: f.assign(copy=0.2))
    table = pairs.compare_pairs(folder, variants, params)
    sheet = pairs.sheet(table, "concept", label)
    assert sheet.header[:3] == ["Method", "Given", "To the goal"]
    first = dict(zip(sheet.header, sheet.rows[0], strict=True))
    assert first["Method"] == "Uni-ControlNet (Global)"
    assert first["Given"] == "image and text"
    assert first["Over image only"] == "+0.100 [+0.100, +0.100]"
    assert sheet.rows[1][-1] == ""
    assert sheet.baselines == 3
    said = [finding.text for finding in pairs.findings(table, "concept", label)]
    assert said == [
        "Image and text against text only: nearer to the goal: my_sixth_row; farther from it: "
        "IP-Adapter MLP LoRA, IP-Adapter LoRA, IP-Adapter MLP, IP-Adapter; "
        "no significant difference: Uni-ControlNet (Global).",
        "Image and text against image only: nearer to the goal: Uni-ControlNet (Global), "
        "IP-Adapter MLP LoRA, IP-Adapter LoRA, IP-Adapter MLP, IP-Adapter, my_sixth_row.",
        "Image and text against another pair's image, text: nearer to the goal: "
        "Uni-ControlNet (Global), IP-Adapter MLP LoRA, IP-Adapter LoRA, IP-Adapter MLP, "
        "IP-Adapter, my_sixth_row.",
        "On average nearer to the image prompt than to the goal: IP-Adapter MLP LoRA, "
        "IP-Adapter LoRA, IP-Adapter.",
    ]


@pytest.mark.parametrize(
    ("method", "change", "message"),
    [
        ("ip_adapter", None, "pairs.parquet is missing"),
        ("text_only", None, "pairs.parquet is missing"),
        ("ip_adapter", lambda f: f.drop(columns="copy"), r"lacks the column\(s\) copy"),
        ("ip_adapter", lambda f: f.assign(goal=np.nan), "not a finite number"),
        ("ip_adapter", lambda f: f.assign(copy=1.01), "not a finite number"),
        ("ip_adapter", lambda f: f.assign(goal="high"), "not a finite number"),
        ("ip_adapter", lambda f: f[f["key"] != "set-0000"], "lacks items of restyle"),
        ("ip_adapter", lambda f: f[f["prompts"] != "image_only"], "lacks items of restyle"),
        ("text_only", lambda f: f[f["prompts"] != "text_only"], "lacks items of restyle"),
        ("ip_adapter", lambda f: f[f["protocol"] != "concept"], "lacks items of concept"),
    ],
)
def test_bad_scores_are_one_line(
    folder: Path,
    variants: list[str],
    params: CompareParams,
    method: str,
    change: Change | None,
    message: str,
) -> None:
    path = folder / method / "pairs.parquet"
    if change:
        edit(path, change)
    else:
        path.unlink()
    with pytest.raises(UserError, match=message) as caught:
        pairs.compare_pairs(folder, variants, params)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(("make it again", "with the same parameters"))
