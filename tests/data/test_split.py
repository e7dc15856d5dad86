"""Splits: what is held out is in no training set, and every sample that is left out is counted."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adapterbench.core.config import DataParams, parse
from adapterbench.core.errors import UserError
from adapterbench.core.files import write_json
from adapterbench.data.sample import RawSample
from adapterbench.data.split import capped, split
from adapterbench.formats.shards import Packed

FAMILIES = ("google", "twitter", "fluent")


def params(**changes: Any) -> DataParams:
    values = {
        "source": "emoji",
        "fetch": {},
        "resolution": 16,
        "split": "images",
        "held_out": "list.json",
        "validation_concepts": None,
        "images_per_concept": None,
        "samples_per_shard": 5,
        "seed": 0,
    }
    return parse(DataParams, values | changes, "data")


def sample(concept: str, family: str, tone: str = "") -> Packed:
    return Packed(
        key=f"{family}-{concept}{tone}",
        kind="png",
        image=b"",
        captions=("a",),
        meta={"concept": concept, "family": family},
    )


SAMPLES = [
    sample(concept, family, tone)
    for concept in ("cat", "dog", "hand", "owl")
    for family in FAMILIES
    for tone in (("-light", "-dark") if concept == "hand" else ("",))
]


def splits(samples: list[Packed], chosen: DataParams) -> tuple[dict[str, set[str]], dict[str, str]]:
    """Keys by split, and the causes of what was dropped."""
    dropped: dict[str, str] = {}

    def clean(_: Iterable[RawSample]) -> Iterator[Packed]:
        return iter(samples)

    rows = split([], clean, chosen, lambda key, cause: dropped.update({key: cause}))
    return {name: {s.key for s in part} for name, part in rows}, dropped


@pytest.fixture
def held_out(tmp_path: Path) -> Callable[..., str]:
    def write(twins: dict[str, str], **by_split: dict[str, list[str]]) -> str:
        write_json(tmp_path / "list.json", {"splits": by_split, "twins": twins})
        return str(tmp_path / "list.json")

    return write


def test_all_images_of_a_concept_by_a_family_are_held_out(held_out: Callable[..., str]) -> None:
    path = held_out(
        {},
        validation={"hand": ["google"], "cat": ["google", "fluent"]},
        novel={"owl": [*FAMILIES]},
    )
    parts, dropped = splits(SAMPLES, params(held_out=path))
    assert parts["validation"] == {
        "google-hand-light", "google-hand-dark", "google-cat", "fluent-cat",
    }  # fmt: skip
    assert parts["novel"] == {f"{family}-owl" for family in FAMILIES}
    held = parts["validation"] | parts["novel"]
    assert parts["train"] == {s.key for s in SAMPLES} - held
    assert not dropped


def test_a_held_out_image_with_a_twin_is_dropped_and_counted(held_out: Callable[..., str]) -> None:
    path = held_out(
        {"google-cat": "twitter-cat"}, validation={"cat": ["google"], "dog": ["google"]}
    )
    parts, dropped = splits(SAMPLES, params(held_out=path))
    assert parts["validation"] == {"google-dog"}
    assert "google-cat" not in parts["train"]
    assert dropped == {"google-cat": "held out, but with a twin among the training images"}


def test_a_concept_has_at_most_so_many_training_images(held_out: Callable[..., str]) -> None:
    path = held_out({}, validation={"hand": ["google"]})
    parts, dropped = splits(SAMPLES, params(held_out=path, images_per_concept=2))
    assert len(parts["validation"]) == 2  # what is held out is never capped
    counts = [sum(key.split("-")[1] == c for key in parts["train"]) for c in ("cat", "dog", "hand")]
    assert counts == [2, 2, 2]
    assert len(dropped) == 1 + 1 + 2 + 1
    assert set(dropped.values()) == {"beyond images_per_concept"}


def test_the_cap_keeps_the_order() -> None:
    kept = capped([*SAMPLES], 1, lambda *_: None)
    assert [s.key for s in kept] == ["google-cat", "google-dog", "google-hand-light", "google-owl"]


def test_a_source_without_makers_has_no_images_to_hold_out(held_out: Callable[..., str]) -> None:
    stranger = Packed(key="x", kind="png", image=b"", captions=("a",), meta={"concept": "x"})
    with pytest.raises(UserError, match=r"x has no family of makers: set data\.split: concepts"):
        splits([stranger], params(held_out=held_out({}, validation={"cat": ["google"]})))


def test_a_list_that_is_missing_or_no_list_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"list.json"):
        splits(SAMPLES, params(held_out=str(tmp_path / "list.json")))
    write_json(tmp_path / "list.json", {"validation": ["cat"]})
    with pytest.raises(UserError, match=r"list.json.*splits"):
        splits(SAMPLES, params(held_out=str(tmp_path / "list.json")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"held_out": None}, "split = images reads held_out"),
        ({"validation_concepts": 3}, "split = images reads held_out"),
        ({"split": "source"}, "split = source reads neither"),
        ({"split": "concepts", "held_out": None}, "split = concepts reads validation_concepts"),
        ({"split": "faces"}, "data.split = 'faces'"),
    ],
)
def test_a_split_that_lacks_its_field_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        params(**changes)
