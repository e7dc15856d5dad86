"""Raw tars: pictures as they are, captions by line, damage in one line."""

import json
from pathlib import Path

import pytest
import webdataset as wds

from adapterbench.core.errors import UserError
from adapterbench.data.sample import read_tar, read_tars


def write_tar(path: Path, *records: dict[str, object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wds.TarWriter(str(path)) as tar:
        for record in records:
            tar.write(record)
    return path


def test_a_record_is_a_sample(tmp_path: Path) -> None:
    facts = {"concept": "cat", "url": "http://x/y", "exif": "{}", "status": "success"}
    tar = write_tar(
        tmp_path / "a.tar",
        {"__key__": "deep/1", "jpg": b"one", "txt": "a cat\n\n tom \n", "json": json.dumps(facts)},
        {"__key__": "2", "webp": b"two", "txt": b"\xff caption"},
        {"__key__": "3", "txt": "no picture"},
        {"__key__": "4", "txt": "", "json": json.dumps({"problem": "HTTP 404"})},
    )
    one, two, three, four = read_tar(tar)
    assert (one.key, one.concept, one.image) == ("deep-1", "cat", b"one")
    assert one.captions == ("a cat", "tom")
    assert one.meta == {"url": "http://x/y"}
    assert (two.key, two.concept, two.image, two.split) == ("2", "2", b"two", None)
    assert two.captions == ("\ufffd caption",)
    assert (three.image, three.problem) == (b"", "no picture file")
    assert (four.image, four.captions, four.problem) == (b"", (), "HTTP 404")


def test_train_comes_before_validation_and_keys_differ(tmp_path: Path) -> None:
    for name in ("validation/a", "train/b", "train/a", "other/a"):
        write_tar(tmp_path / f"{name}.tar", {"__key__": "1", "jpg": b"-", "txt": "-"})
    samples = list(read_tars(tmp_path))
    assert [(s.split, s.key) for s in samples] == [
        ("train", "a-1"),
        ("train", "b-1"),
        ("validation", "a-1"),
    ]


@pytest.mark.parametrize("cut", [0, 700, 1024, 2048, None])
def test_a_damaged_tar_is_one_line(tmp_path: Path, cut: int | None) -> None:
    path = write_tar(
        tmp_path / "a.tar", *({"__key__": str(n), "jpg": b"-" * 600} for n in range(3))
    )
    path.write_bytes(path.read_bytes()[:cut] if cut is not None else b"x" * 4096)
    with pytest.raises(UserError, match=r"a\.tar is missing, truncated or damaged") as caught:
        list(read_tar(path))
    assert "\n" not in str(caught.value)


def test_a_missing_tar_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is missing"):
        list(read_tar(tmp_path / "a.tar"))
