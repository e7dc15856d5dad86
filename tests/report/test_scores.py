"""Scores that are damaged, incomplete or not paired are refused in one clear line."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from adapterbench.core.errors import UserError
from adapterbench.report.scores import read_scores

Change = Callable[[pd.DataFrame], pd.DataFrame]


@pytest.fixture
def folder(tmp_path: Path, write_scores: Callable[..., None]) -> Path:
    write_scores(tmp_path)
    return tmp_path


def edit(path: Path, change: Change) -> None:
    change(pd.read_parquet(path)).to_parquet(path)


def test_an_items_images_are_averaged_and_the_shuffled_row_is_the_mean_over_variants(
    folder: Path, variants: list[str]
) -> None:
    scores = read_scores(folder, variants, "image")
    frames = {
        v: pd.read_parquet(folder / f"{v}.parquet").query("protocol == 'image'") for v in variants
    }
    key = "set-0003"
    own = frames["ip_adapter"][frames["ip_adapter"]["key"] == key]
    assert scores.methods["ip_adapter"].loc[key, "clip_i"] == pytest.approx(own["clip_i"].mean())
    assert scores.of("shuffled_reference", "ip_adapter").loc[key, "clip_i"] == pytest.approx(
        own["clip_i_shuffled"].mean()
    )
    everyone = np.mean([f[f["key"] == key]["clip_i_shuffled"].mean() for f in frames.values()])
    assert scores.methods["shuffled_reference"].loc[key, "clip_i"] == pytest.approx(everyone)
    assert scores.images["ip_adapter"] == 3
    assert scores.images["reference"] == 1


@pytest.mark.parametrize(
    ("method", "change", "message"),
    [
        ("ip_adapter", lambda f: f.drop(columns="clip_i"), r"lacks the column\(s\) clip_i"),
        ("ip_adapter", lambda f: f.drop(columns="clip_t_shuffled"), "lacks .* clip_t_shuffled"),
        ("ip_adapter", lambda f: f.iloc[1:], r"incomplete: 1 item\(s\), such as set-0000"),
        ("ip_adapter", lambda f: f[f["key"] != "set-0000"], "different items .* set-0000"),
        ("no_prompt", lambda f: f[f["k"] < 2], "no_prompt has 2 images per item"),
        ("ip_adapter", lambda f: f[f["protocol"] != "image"], "no rows of protocol 'image'"),
        ("text_only", lambda f: f.assign(clip_t=np.nan), "120 value.* not finite"),
        ("text_only", lambda f: f.assign(clip_t="high"), "not finite numbers"),
        ("text_only", lambda f: pd.concat([f, f.iloc[:2]]), r"2 image\(s\) twice"),
    ],
)
def test_bad_scores_are_refused(
    folder: Path, variants: list[str], method: str, change: Change, message: str
) -> None:
    edit(folder / f"{method}.parquet", change)
    with pytest.raises(UserError, match=message) as caught:
        read_scores(folder, variants, "image")
    assert method in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "again" in str(caught.value) or "generate" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PAR1 not really a table PAR1"])
def test_a_damaged_file_is_refused(folder: Path, variants: list[str], content: bytes) -> None:
    (folder / "ip_adapter.parquet").write_bytes(content)
    with pytest.raises(UserError, match=r"ip_adapter\.parquet is damaged") as caught:
        read_scores(folder, variants, "image")
    assert "\n" not in str(caught.value)


def test_an_unknown_file_is_ignored_and_logged(
    folder: Path, variants: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "ip_adapter.parquet").rename(folder / "old_row.parquet")
    rest = [v for v in variants if v != "ip_adapter"]
    assert "old_row" not in read_scores(folder, rest, "image").methods
    assert "old_row.parquet belongs to no variant" in caplog.text
