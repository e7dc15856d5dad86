"""Raw tars: images as they are, captions by line, damage in one line."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import webdataset as wds

from adapterbench.core.errors import UserError
from adapterbench.data.sample import PLAIN, plain_key, read_tar, read_tars


def write_tar(path: Path, *records: Mapping[str, object]) -> Path:
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
        {"__key__": "2", "webp": b"two", "txt": "\ufeffa caption\r\n\ufeffits other"},
        {"__key__": "3", "txt": "no image"},
        {"__key__": "4", "txt": "", "json": json.dumps({"problem": "HTTP 404"})},
    )
    one, two, three, four = read_tar(tar)
    assert (one.key, one.concept, one.image) == ("deep/1", "cat", b"one")
    assert one.captions == ("a cat", "tom")
    assert one.meta == {"url": "http://x/y"}
    assert (two.key, two.concept, two.image, two.split) == ("2", None, b"two", None)
    assert two.captions == ("a caption", "its other")
    assert (three.image, three.problem) == (b"", "no image file")
    assert (four.image, four.captions, four.problem) == (b"", (), "HTTP 404")


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ({"json": b"[]"}, "its .json is not an object"),
        ({"json": b"null"}, "its .json is not an object"),
        ({"json": b"3"}, "its .json is not an object"),
        ({"json": b'{"concept": "cat"'}, "its .json is damaged"),
        ({"json": b""}, "its .json is damaged"),
        ({"json": b"\xff{}"}, "its .json is damaged"),
        ({"json": b"[" * 100_000}, "its .json is damaged"),
        ({"json": b'{"concept": "cat", "concept": "dog"}'}, "its .json is damaged"),
        ({"txt": "a caf\u00e9".encode("latin-1")}, "caption is not UTF-8"),
        ({"txt": "\u043a\u043e\u0442".encode("cp1251")}, "caption is not UTF-8"),
        ({"txt": "a cat".encode("utf-16")}, "caption is not UTF-8"),
        ({"txt": "a cat".encode("utf-16-le")}, "caption is not UTF-8"),
        ({"txt": "a cat".encode("utf-32-be")}, "caption is not UTF-8"),
        ({"txt": "\u043a\u043e\u0442".encode("utf-16-le")}, "caption is not UTF-8"),
        ({"txt": "\u732b\u306e\u7d75".encode("iso2022_jp")}, "caption is not UTF-8"),
        ({"jpg": b""}, "empty file"),
    ],
)
def test_a_bad_part_costs_its_own_sample(
    tmp_path: Path, parts: dict[str, bytes], problem: str
) -> None:
    good = {"jpg": b"-", "txt": b"a caption", "json": b"{}"}
    tar = write_tar(
        tmp_path / "a.tar",
        {"__key__": "1", **good},
        {"__key__": "2", **good, **parts},
        {"__key__": "3", **good},
    )
    samples = list(read_tar(tar))
    assert [(s.key, s.image) for s in samples] == [("1", b"-"), ("2", b""), ("3", b"-")]
    assert samples[1].problem == problem


def test_what_json_can_hold_and_no_file_can(tmp_path: Path) -> None:
    """Half a character; a problem and a concept that are no text."""
    facts = {"concept": "\ud83d", "problem": ["x"], "url": "\ud83d"}
    tar = write_tar(
        tmp_path / "a.tar",
        {"__key__": "1", "jpg": b"-", "json": json.dumps(facts)},
        {"__key__": "2", "json": json.dumps({"concept": {"a": 1}, "problem": 5})},
    )
    one, two = read_tar(tar)
    assert one.concept == "?"
    assert (two.concept, two.problem) == ("{'a': 1}", "5")


def test_what_is_missing_as_pandas_writes_it(tmp_path: Path) -> None:
    """No concept is called `nan`, and no number is taken for an address."""
    facts = b'{"concept": NaN, "url": Infinity, "path": 5}'
    tar = write_tar(tmp_path / "a.tar", {"__key__": "1", "jpg": b"-", "json": facts})
    [sample] = read_tar(tar)
    assert (sample.concept, sample.meta, sample.image) == (None, {}, b"-")


def test_a_second_image_of_one_name_is_a_problem(tmp_path: Path) -> None:
    """Such as a mask: it is not what the caption says."""
    tar = write_tar(tmp_path / "a.tar", {"__key__": "1", "png": b"mask", "jpg": b"-", "txt": "-"})
    taken, left = read_tar(tar, prefix="a-")
    assert (taken.key, taken.image) == ("a-1", b"-")
    assert (left.key, left.problem) == ("a-1.png", "another image of the same name is taken")


def test_plain_keys_stay_and_others_differ() -> None:
    assert [plain_key(name) for name in ("000012", "cc3m-train-0000-1", "IMG_1")] == [
        "000012",
        "cc3m-train-0000-1",
        "IMG_1",
    ]
    names = [
        "a/b",
        "a.b",
        "a b",
        "a\0b",
        "a\udcffb",
        "",
        ".",
        "\u732b",
        "\u72ac",
        "x" * 129,
        "x" * 999,
    ]
    keys = {plain_key(name) for name in [*names, "a-b"]}
    assert len(keys) == len(names) + 1
    assert all(PLAIN.fullmatch(key) for key in keys)


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
