"""The comparison: order, columns, values and files."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from adapterbench.core.config import CompareParams
from adapterbench.core.errors import UserError
from adapterbench.report import table
from adapterbench.report.methods import FLOORS
from adapterbench.report.table import Comparison, compare

COLUMNS = (
    "method,label,trained,trainable_params,clip_t,clip_t_lo,clip_t_hi,clip_i,clip_i_lo,clip_i_hi,"
    "neutral,neutral_lo,neutral_hi,r_at_1,r_at_1_lo,r_at_1_hi,diversity,kid,precision,recall,n,k,"
    "train_seconds,images_per_second,peak_memory_mb,host_memory_mb,checkpoint_mb"
)


def build(
    project: Path, variants: list[str], params: CompareParams, training_free: Sequence[str] = ()
) -> dict[str, Comparison]:
    folders = project / "results/scores", project / "metrics/train"
    rows: dict[str, Any] = {v: {} for v in variants}
    return {p: compare(*folders, rows, training_free, p, params) for p in ("image", "image_text")}


def test_files_have_the_promised_columns_rows_and_bytes(
    project: Path, variants: list[str], params: CompareParams
) -> None:
    for out in ("a", "b"):
        table.write(build(project, variants, params).values(), project / out)
    files = {path.name: path.read_bytes() for path in (project / "a").iterdir()}
    assert files == {path.name: path.read_bytes() for path in (project / "b").iterdir()}
    lines = files["comparison.csv"].decode().splitlines()
    assert lines[0] == COLUMNS
    assert [line.split(",")[0] for line in lines[1:]] == [
        "uni_controlnet_global",
        "ip_adapter_mlp_lora",
        "ip_adapter_lora",
        "ip_adapter_mlp",
        "ip_adapter",
        "my_sixth_row",
        "no_prompt",
        "text_only",
        "shuffled_reference",
        "other_item",
        "reference_16px",
        "vae",
        "reference",
    ]
    assert lines[7].split(",")[1:4] == ["No prompt", "", "0"]
    assert lines[7].endswith(",40,3,,,,,")
    assert lines[6].endswith(",0.45,45.678,,1234.50,0.180")  # its peak memory was not measured
    assert lines[13].endswith(f"{'1.000000,' * 9},,,,40,1,,,,,")  # one image has no diversity
    assert 0.2 < float(lines[1].split(",")[-11]) < 0.4  # nor were there enough for KID
    assert lines[1].split(",")[-10:-6] == ["", "", "", "40"]


def test_what_is_written_is_read_back(
    project: Path, variants: list[str], params: CompareParams
) -> None:
    built = build(project, variants, params)
    table.write(built.values(), project / "out")
    for protocol, comparison in table.read(project / "out").items():
        for name in ("rows", "paired"):
            pd.testing.assert_frame_equal(
                getattr(comparison, name), getattr(built[protocol], name), check_dtype=False
            )


def test_paired_differences_are_those_of_the_items(
    project: Path, variants: list[str], params: CompareParams
) -> None:
    comparison = build(project, variants, params)["image"]
    means = {}
    for method in ("ip_adapter", "ip_adapter_lora", "text_only"):
        frame = pd.read_parquet(project / f"results/scores/{method}.parquet")
        frame = frame[frame["protocol"] == ("image_text" if method == "text_only" else "image")]
        means[method] = frame.groupby("key")["clip_i"].mean()
    for baseline in ("ip_adapter", "text_only"):
        own = (means["ip_adapter_lora"] - means[baseline]).to_numpy()
        rng = np.random.default_rng(params.seed)
        draws = [own[rng.integers(0, 40, 40)].mean() for _ in range(params.bootstrap_samples)]
        expected = (own.mean(), *np.quantile(draws, [0.025, 0.975]))
        found = comparison.difference("ip_adapter_lora", baseline, "clip_i")
        np.testing.assert_allclose(found, expected, atol=1e-6)
        back = comparison.difference(baseline, "ip_adapter_lora", "clip_i")
        np.testing.assert_allclose(back, (-expected[0], -expected[2], -expected[1]), atol=1e-6)
    # the interval of a difference is narrower than the two means suggest: items are paired
    row = comparison.row("ip_adapter_lora")
    _, lo, hi = comparison.difference("ip_adapter_lora", "ip_adapter", "clip_i")
    assert hi - lo < 0.8 * (row["clip_i_hi"] - row["clip_i_lo"])


def test_every_variant_is_paired_with_floors_and_with_the_original(
    project: Path, variants: list[str], params: CompareParams
) -> None:
    paired = build(project, variants, params)["image_text"].paired
    assert list(paired) == [
        *("protocol", "method", "baseline", "metric"),
        *("difference", "lo", "hi", "apart"),
    ]
    for variant in variants:
        baselines = set(paired[paired["method"] == variant]["baseline"])
        wanted = {*FLOORS, "ip_adapter"} - {variant}
        assert wanted <= baselines
    assert not paired.duplicated(["method", "baseline", "metric"]).any()
    apart = paired.set_index(["method", "baseline", "metric"])["apart"]
    assert apart["my_sixth_row", "ip_adapter", "clip_i"]  # behind by 0.11 of a noise of 0.03
    assert apart["ip_adapter", "text_only", "clip_i"]  # ahead by 0.20
    assert not apart["my_sixth_row", "text_only", "clip_t"]  # ahead by 0.001
    assert set(paired["protocol"]) == {"image_text"}


FREE = ("img2img", "reference_only")


def with_training_free(project: Path) -> None:
    """Scores of both methods: those of two variants."""
    scores = project / "results/scores"
    for name, variant in zip(FREE, ("ip_adapter", "ip_adapter_mlp"), strict=True):
        shutil.copyfile(scores / f"{variant}.parquet", scores / f"{name}.parquet")


def test_methods_without_training_are_rows_of_both_tables(
    project: Path, variants: list[str], params: CompareParams
) -> None:
    with_training_free(project)
    built, plain = (build(project, variants, params, free) for free in (FREE, ()))
    table.write(built.values(), project / "out")
    for protocol, comparison in table.read(project / "out").items():
        methods = list(comparison.rows["method"])
        places = [methods.index(name) for name in FREE]
        assert places == [len(variants), len(variants) + 1]
        assert comparison.training_free == list(FREE)
        assert comparison.variants == plain[protocol].variants
        # under their own protocol, and no shuffled reference of theirs in the mean
        twin, row = comparison.row("ip_adapter"), comparison.row("img2img")
        assert (row["clip_i"], row["k"], row["trainable_params"]) == (twin["clip_i"], 3, 0)
        shuffled, expected = (
            each.row("shuffled_reference")["clip_i"] for each in (comparison, plain[protocol])
        )
        assert shuffled == pytest.approx(expected, abs=1e-6)
        assert comparison.difference("ip_adapter", "img2img", "clip_i") == (0, 0, 0)
        assert comparison.difference("ip_adapter", "reference_only", "clip_i") == pytest.approx(
            comparison.difference("ip_adapter", "ip_adapter_mlp", "clip_i"), abs=1e-6
        )
    (project / "results/scores/img2img.parquet").unlink()
    with pytest.raises(UserError, match=r"img2img\.parquet is missing"):
        build(project, variants, params, FREE)


def test_without_the_original_the_first_variant_takes_its_place(
    project: Path, params: CompareParams
) -> None:
    comparison = build(project, ["my_sixth_row", "ip_adapter_mlp"], params)["image"]
    assert comparison.variants == ["ip_adapter_mlp", "my_sixth_row"]
    assert comparison.original == "ip_adapter_mlp"
    assert comparison.difference("my_sixth_row", "ip_adapter_mlp", "clip_i")[0] < 0


def test_metrics_hold_both_protocols_under_their_own_names(
    project: Path, variants: list[str], params: CompareParams
) -> None:
    built = build(project, variants, params)
    numbers = json.loads(json.dumps(table.as_metrics(built.values())))["ip_adapter"]
    assert numbers["clip_i"] == built["image"].row("ip_adapter")["clip_i"]
    assert numbers["image_text_clip_i"] == built["image_text"].row("ip_adapter")["clip_i"]
    assert numbers["trainable_params"] == 20_746_752


def test_a_training_record_that_lacks_a_column_is_refused(
    project: Path, variants: list[str], params: CompareParams
) -> None:
    (project / "metrics/train/ip_adapter.json").write_text('{"trainable_params": 3}')
    with pytest.raises(UserError, match=r"ip_adapter\.json lacks train_seconds"):
        build(project, variants, params)


@pytest.mark.parametrize("text", ["", "method,clip_t\nx,1\n"])
def test_a_damaged_table_is_refused(
    project: Path, variants: list[str], params: CompareParams, text: str
) -> None:
    table.write(build(project, variants, params).values(), project / "out")
    (project / "out/comparison.csv").write_text(text)
    with pytest.raises(UserError, match=r"comparison\.csv"):
        table.read(project / "out")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("comparison.csv", lambda f: f[:-1], r"comparison\.csv does not have one row per method"),
        ("comparison.csv", lambda f: f[f["method"] == "vae"], "does not have one row per method"),
        ("comparison_image_text.csv", lambda f: pd.concat([f, f[:1]]), "does not have one row"),
        ("comparison.csv", lambda f: f.assign(clip_t_lo=np.nan), r"comparison\.csv lacks a score"),
        ("comparison.csv", lambda f: f.assign(n=np.inf), r"comparison\.csv lacks a score"),
        ("paired.csv", lambda f: f[:-1], r"paired\.csv lacks a difference"),
        ("paired.csv", lambda f: f.assign(lo=np.nan), r"paired\.csv lacks a difference"),
    ],
)
def test_a_table_that_was_cut_short_is_refused(
    project: Path,
    variants: list[str],
    params: CompareParams,
    name: str,
    change: Callable[[pd.DataFrame], pd.DataFrame],
    message: str,
) -> None:
    table.write(build(project, variants, params).values(), project / "out")
    path = project / "out" / name
    change(pd.read_csv(path)).to_csv(path, index=False)
    with pytest.raises(UserError, match=message) as caught:
        table.read(project / "out")
    assert str(caught.value).endswith(": make it again")


@pytest.mark.parametrize("value", ["Infinity", "NaN", "true", '"5"', "[5]"])
def test_costs_are_finite_numbers(value: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(f'{{"loss": {value}}}')
    with pytest.raises(UserError, match=r"a\.json is not the costs of a training"):
        table.read_training(tmp_path, "a")


def test_no_variants_is_a_clear_error(
    tmp_path: Path, params: CompareParams, write_scores: Callable[..., None]
) -> None:
    write_scores(tmp_path)
    with pytest.raises(UserError, match="no variants"):
        compare(tmp_path, tmp_path, {}, [], "image", params)


def test_a_row_has_the_name_that_the_user_gives_it(
    project: Path, variants: list[str], params: CompareParams
) -> None:
    folders = project / "results/scores", project / "metrics/train"
    rows: dict[str, dict[str, Any]] = {v: {} for v in variants}
    named = params.model_copy(update={"labels": {"my_sixth_row": "Mine, rank 4"}})
    built = compare(*folders, rows, [], "image", named)
    assert built.label("my_sixth_row") == "Mine, rank 4"
    assert built.label("ip_adapter") == "IP-Adapter"
    table.write([built, compare(*folders, rows, [], "image_text", named)], project / "out")
    assert table.read(project / "out")["image"].label("my_sixth_row") == "Mine, rank 4"
    twice = params.model_copy(update={"labels": {"my_sixth_row": "IP-Adapter"}})
    with pytest.raises(UserError, match=r"two rows have the label 'IP-Adapter'.*compare\.labels"):
        compare(*folders, rows, [], "image", twice)
