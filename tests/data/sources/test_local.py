"""The user's own images, from a folder, a table and tars, through `prepare` to shards."""

import errno
import gzip
import json
import os
import tarfile
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import webdataset as wds
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from adapterbench.core.config import DataParams, parse
from adapterbench.core.errors import UserError
from adapterbench.data.prepare import prepare
from adapterbench.data.sample import RawSample
from adapterbench.data.sources import local
from adapterbench.formats.image import SUFFIXES
from adapterbench.formats.shards import Sample, read_split
from adapterbench.runs import workers


def image_bytes(number: int, kind: str = "PNG") -> bytes:
    image = Image.new("RGB", (40, 30), (number, 99, 255 - number))
    image.paste("white", (0, 0, 20, 20))
    file = BytesIO()
    image.save(file, kind)
    return file.getvalue()


def write_images(folder: Path, count: int = 6) -> Path:
    for number in range(count):
        path = folder / f"set {number % 2}" / f"my.{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_bytes(number))
        path.with_suffix(".txt").write_text(f"image {number}\nnumber {number}\n")
    return folder


def brought(path: Path | str, raw: Path) -> dict[str, RawSample]:
    params = local.Params(path=str(path))
    local.fetch(params, raw)
    return {sample.meta.get("path", sample.key): sample for sample in local.read(raw, params)}


def refusal(path: Path | str, raw: Path) -> str:
    with pytest.raises(UserError) as caught:
        local.fetch(local.Params(path=str(path)), raw)
    assert "\n" not in str(caught.value)
    assert not raw.exists() or not list(raw.iterdir())
    return str(caught.value)


def prepared(path: Path | str, tmp_path: Path, **changes: Any) -> dict[str, Any]:
    """The manifest of the shards in `tmp_path/shards`."""
    values = {
        "source": "local",
        "fetch": {"path": str(path)},
        "resolution": 16,
        "split": "concepts",
        "held_out": None,
        "validation_concepts": 2,
        "images_per_concept": None,
        "samples_per_shard": 3,
        "seed": 0,
    }
    params = parse(DataParams, values | changes, "data")
    local.fetch(parse(local.Params, params.fetch, "data.fetch"), tmp_path / "raw")
    return prepare(params, tmp_path / "raw", tmp_path / "shards")


def shards(tmp_path: Path) -> list[Sample]:
    return [s for name in ("train", "validation") for s in read_split(tmp_path / "shards", name)]


def test_a_folder_becomes_shards(tmp_path: Path) -> None:
    manifest = prepared(write_images(tmp_path / "mine"), tmp_path)
    assert manifest["dropped"] == {}
    assert [manifest["splits"][name]["samples"] for name in ("train", "validation")] == [4, 2]
    assert manifest["attribution"] == {"local": "the user's own images"}
    by_path = {sample.meta["path"]: sample for sample in shards(tmp_path)}
    sample = by_path["set 1/my.3.png"]
    assert sample.captions == ("image 3", "number 3")
    assert sample.image.size == (16, 16)
    assert sample.key.startswith("set-1-my-3-")


def test_images_are_kept_as_they_are(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "mine", 2)
    (folder / "photo.JPG").write_bytes(image_bytes(9, "JPEG"))
    (folder / "photo.txt").write_text("a photo", encoding="utf-8-sig")
    (folder / "notes.md").write_text("no image")
    samples = brought(folder, tmp_path / "raw")
    assert list(samples) == ["photo.JPG", "set 0/my.0.png", "set 1/my.1.png"]
    assert samples["photo.JPG"].image == image_bytes(9, "JPEG")
    assert samples["photo.JPG"].captions == ("a photo",)


def test_two_fetches_write_the_same_bytes(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "mine")
    for name in "ab":
        brought(folder, tmp_path / name)
    tars = [[path.read_bytes() for path in sorted((tmp_path / n).iterdir())] for n in "ab"]
    assert tars[0] == tars[1]
    assert len(tars[0]) == 1


def test_processes_pack_the_bytes_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "PER_TAR", 2)
    folder = write_images(tmp_path / "mine")
    for name, few in {"one": workers.MAX_INLINE, "two": 0}.items():
        monkeypatch.setattr(workers, "MAX_INLINE", few)
        brought(folder, tmp_path / name)
    tars = [{p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in ("one", "two")]
    assert tars[0] == tars[1]
    assert len(tars[0]) == 3


def test_many_images_are_several_tars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "PER_TAR", 4)
    samples = brought(write_images(tmp_path / "mine"), tmp_path / "raw")
    assert [path.name for path in sorted((tmp_path / "raw").iterdir())] == [
        "00000.tar",
        "00001.tar",
    ]
    assert len(samples) == 6


def test_another_image_changes_no_key(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "mine")
    before = {sample.key for sample in brought(folder, tmp_path / "a").values()}
    (folder / "a.png").write_bytes(image_bytes(77))
    after = {sample.key for sample in brought(folder, tmp_path / "b").values()}
    assert before < after


def test_like_names_have_keys_of_their_own() -> None:
    names = [
        "a/b.png",
        "a-b.png",
        "a.b.png",
        "a/b.jpg",
        "\u732b.png",
        "\u72ac.png",
        "x" * 300 + ".png",
    ]
    keys = {local.key(name) for name in names}
    assert len(keys) == len(names)
    assert not [key for key in keys if "." in key or "/" in key or len(key) > 80]


WRITERS: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    ".csv": lambda table, path: table.to_csv(path, index=False, encoding="utf-8-sig"),
    ".tsv": lambda table, path: table.to_csv(path, index=False, sep="\t"),
    ".parquet": lambda table, path: table.to_parquet(path),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_table_of_paths_captions_and_concepts(tmp_path: Path, kind: str) -> None:
    folder = write_images(tmp_path / "mine")
    rows = [("set 0/my.0.png", "NA", "flag"), ("set 1/my.1.png", "two, three", "")]
    rows += [("set 0/my.0.png", "of Namibia", "flag"), (str(folder / "set 0/my.2.png"), "x", "x")]
    table = folder / f"table{kind}"
    WRITERS[kind](pd.DataFrame(rows, columns=["path", "caption", "concept"]), table)
    samples = brought(table, tmp_path / "raw")
    assert list(samples) == ["set 0/my.0.png", "set 1/my.1.png", str(folder / "set 0/my.2.png")]
    assert samples["set 0/my.0.png"].captions == ("NA", "of Namibia")
    assert samples["set 0/my.0.png"].concept == "flag"
    assert samples["set 1/my.1.png"].concept is None
    assert samples["set 0/my.0.png"].image == image_bytes(0)


def test_a_concept_falls_on_one_side(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "mine", 12)
    rows = [(f"set {n % 2}/my.{n}.png", f"image {n}", f"c{n % 4}") for n in range(12)]
    table = folder / "table.csv"
    pd.DataFrame(rows, columns=["path", "caption", "concept"]).to_csv(table, index=False)
    prepared(table, tmp_path)
    sides = [
        {sample.meta["concept"] for sample in read_split(tmp_path / "shards", name)}
        for name in ("train", "validation")
    ]
    assert [len(side) for side in sides] == [2, 2]
    assert not sides[0] & sides[1]


def test_what_cannot_be_used_is_counted(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "mine")
    (folder / "cut.png").write_bytes(image_bytes(50)[:-30])
    (folder / "page.jpg").write_text("<html>")
    (folder / "short.jpg").write_bytes(image_bytes(52, "JPEG")[:-20])
    (folder / "lonely.png").write_bytes(image_bytes(51))
    (folder / "again.png").write_bytes(image_bytes(0))
    names = [
        "cut.png",
        "page.jpg",
        "short.jpg",
        "lonely.png",
        "again.png",
        "gone.png",
        "phone.heic",
    ]
    names += [f"set {n % 2}/my.{n}.png" for n in range(6)]
    table = folder / "table.csv"
    rows = [(name, "" if name == "lonely.png" else name) for name in names]
    pd.DataFrame(rows, columns=["path", "caption"]).to_csv(table, index=False)
    manifest = prepared(table, tmp_path)
    unsupported = next(cause for cause in manifest["dropped"] if cause.startswith("not an image"))
    assert manifest["dropped"] == {
        "duplicate image": 1,
        "no caption": 1,
        "no such file or directory": 1,
        "not a readable image": 2,
        unsupported: 1,
    }
    # a JPEG that ends too early is counted where it is decoded
    bad: list[dict[str, str]] = []
    kept = [
        sample
        for split in ("train", "validation")
        for sample in read_split(tmp_path / "shards", split, bad)
    ]
    assert len(kept) == 6
    assert [row["cause"] for row in bad] == ["not a readable image"]
    assert bad[0]["key"].startswith("short-")


def write_tars(folder: Path, *names: str) -> None:
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        with wds.TarWriter(str(folder / name)) as tar:
            for key in range(2):
                data = image_bytes(10 * number + key)
                tar.write({"__key__": f"{key:03d}", "png": data, "txt": f"{name} {key}"})


@pytest.mark.parametrize("pattern", ["*.tar", "set-{00..02}.tar", "set-0[0-2].tar"])
def test_tars_are_taken_as_they_are(tmp_path: Path, pattern: str) -> None:
    write_tars(tmp_path / "mine", "set-00.tar", "set-01.tar", "set-02.tar")
    manifest = prepared(tmp_path / "mine" / pattern, tmp_path)
    assert sum(split["samples"] for split in manifest["splits"].values()) == 6
    assert {sample.key for sample in shards(tmp_path)} == {
        f"set-{tar:02d}-{key:03d}" for tar in range(3) for key in range(2)
    }


def test_a_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_images(tmp_path / "mine")
    assert len(brought("~/mine", tmp_path / "raw")) == 6


def test_what_is_wrong_with_a_path_is_one_line(tmp_path: Path) -> None:
    raw, mine = tmp_path / "raw", tmp_path / "mine"
    assert "neither a folder nor a .csv" in refusal(mine, raw)
    assert "matches no file" in refusal(mine / "*.tar", raw)
    assert "has unbalanced braces" in refusal(mine / "{0..9.tar", raw)
    mine.mkdir()
    assert "has no image (jpg" in refusal(mine, raw)
    (mine / "a.png").write_bytes(image_bytes(0))
    assert "has a caption: put a .txt of the same name beside each" in refusal(mine, raw)
    (mine / "a.zip").write_bytes(b"PK")
    assert "neither a folder" in refusal(mine / "a.zip", raw)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (
            b"file,caption\na.png,x\n",
            "has no column 'path' or 'image_file' or 'file_name' .it has file, caption.",
        ),
        (b"path,caption\nb.png,x\n", "none of the 1 files"),
        (b"path,caption\na.png,x,y,z\na,b,c\n,d,e,f,g", "cannot be read"),
        (b"path,caption\n\xff\xfe", "cannot be read .*utf-8"),
        (b'path,caption\na.png,"Hi" he said\nb.png,x\n', "cannot be read"),
        (b'path,caption\na.png,"Hi he said\nb.png,"Ho" she said\n', "cannot be read"),
        (b'path,caption\na.png,"Hi he said\nb.png,x\n', "cannot be read"),
        (b"path,caption\na.png,a cat, sitting\n", "line 2 has 3 fields for 2 columns"),
        (b"path,caption,caption\na.png,x,y\n", "cannot be read .it has 'caption' twice"),
        (b"path,caption\n\n", "has no rows"),
        (b"", "has no rows"),
    ],
)
def test_a_bad_table_is_one_line(tmp_path: Path, text: bytes, cause: str) -> None:
    table = tmp_path / "table.csv"
    table.write_bytes(text)
    with pytest.raises(UserError, match=cause) as caught:
        local.fetch(local.Params(path=str(table)), tmp_path / "raw")
    assert "\n" not in str(caught.value)


TWICE = b'[{"path": "a.png", "text": "a cat", "text": "a dog"}]'
BAD_TABLES: dict[str, list[bytes]] = {
    ".parquet": [b"PAR1, no more", b""],
    ".json": [b"{", b"{}", b"null", b"[1]", b"[[]]", b"[" * 100_000, b"\xff", b"[]", TWICE],
    ".jsonl": [TWICE[1:-1], b"{}{}", b"[]", b"null", b'{"path": "a.png"\n}', b"\xff", b""],
    ".tsv": [b"\xff\xfep\0a\0t\0h\0", b""],
}


@pytest.mark.parametrize(
    ("kind", "data"), [(kind, data) for kind, files in BAD_TABLES.items() for data in files]
)
def test_a_damaged_table_is_one_line(tmp_path: Path, kind: str, data: bytes) -> None:
    (tmp_path / f"table{kind}").write_bytes(data)
    cause = refusal(tmp_path / f"table{kind}", tmp_path / "raw")
    assert "cannot be read" in cause or "has no rows" in cause


def test_two_tars_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder in "ab":
        write_tars(tmp_path / folder, "set.tar")
    with pytest.raises(UserError, match=r"the name set\.tar: rename one"):
        local.fetch(local.Params(path=str(tmp_path / "[ab]/*.tar")), tmp_path / "raw")


@pytest.mark.parametrize("name", ["set.tar", "set.tar.gz"])
@pytest.mark.parametrize("damage", ["cut", "hole", "text"])
def test_a_damaged_tar_is_one_line(tmp_path: Path, name: str, damage: str) -> None:
    """The user's own file is named: fetching it again would not help."""
    write_tars(tmp_path / "mine", "set.tar")
    path = tmp_path / "mine/set.tar"
    data = path.read_bytes()
    with tarfile.open(path) as tar:
        at = tar.getmembers()[1].offset
    hole = data[:at] + bytes(512) + data[at + 512 :]
    data = {"cut": data[:1500], "hole": hole, "text": b"x"}[damage]
    path.write_bytes(data)
    if name.endswith(".gz"):
        path = path.rename(path.with_name(name))
        path.write_bytes(gzip.compress(data))
    message = refusal(path, tmp_path / "raw")
    assert f"{path} cannot be read" in message
    assert "download or pack it again" in message


@pytest.mark.parametrize("name", ["set.tar.gz", "set.tgz", "set.tar"])
def test_gzipped_tars_are_unpacked(tmp_path: Path, name: str) -> None:
    write_tars(tmp_path / "mine", "set.tar")
    plain = (tmp_path / "mine/set.tar").read_bytes()
    (tmp_path / "mine/set.tar").unlink()
    (tmp_path / "mine" / name).write_bytes(gzip.compress(plain))
    assert set(brought(tmp_path / "mine" / name, tmp_path / "raw")) == {"set-000", "set-001"}
    assert (tmp_path / "raw/set.tar").read_bytes() == plain


def test_a_gzip_bomb_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "set.tar.gz").write_bytes(gzip.compress(bytes(10**7)))
    assert "grows more than 200-fold" in refusal(tmp_path / "set.tar.gz", tmp_path / "raw")


@pytest.mark.parametrize("name", ["set{1}.tar", "set[1].tar", "part-v1.5.tar", "\u732b 1.tar"])
def test_any_name_of_a_tar_is_taken(tmp_path: Path, name: str) -> None:
    write_tars(tmp_path / "mine", name, "other.tar")
    manifest = prepared(tmp_path / "mine" / name, tmp_path, validation_concepts=1)
    assert [split["samples"] for split in manifest["splits"].values()] == [1, 1]
    assert len(shards(tmp_path)) == 2


def test_a_linked_folder_is_read_once(tmp_path: Path) -> None:
    elsewhere = write_images(tmp_path / "elsewhere")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "a link").symlink_to(elsewhere / "set 0")
    (mine / "set 1").mkdir()
    (mine / "set 1/b.png").write_bytes(image_bytes(50))
    (mine / "set 1/b.txt").write_text("b")
    (mine / "again").symlink_to("set 1")  # where it really is comes first
    (mine / "set 1/round").symlink_to(mine)
    assert list(brought(mine, tmp_path / "raw")) == [
        *(f"a link/my.{number}.png" for number in (0, 2, 4)),
        "set 1/b.png",
    ]


def causes(path: Path, tmp_path: Path) -> dict[str, str]:
    """Why images cannot be used, by key without digest, before any is decoded."""
    samples = brought(path, tmp_path / "raw").values()
    return {s.key.rpartition("-")[0]: s.problem for s in samples if not s.image}


def test_what_a_folder_has_and_cannot_be_used_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "MAX_BYTES", 5000)
    mine = write_images(tmp_path / "mine")
    (mine / "broken.png").symlink_to("nowhere.png")
    (mine / "large.png").write_bytes(image_bytes(60) + bytes(5000))
    (mine / "latin.png").write_bytes(image_bytes(61))
    (mine / "latin.txt").write_bytes("caf\u00e9".encode("latin-1"))
    (mine / "loop.png").write_bytes(image_bytes(62))
    (mine / "loop.txt").symlink_to("loop.txt")
    (mine / "phone.heic").write_bytes(b"heic")
    (mine / "phone.txt").write_text("no image that we know")
    (mine / "empty.png").touch()
    os.mkfifo(mine / "pipe.png")
    assert causes(mine, tmp_path) == {
        "broken": "no such file or directory",
        "empty": "empty file",
        "large": "too many bytes",
        "latin": "caption is not UTF-8",
        "loop": "caption: too many levels of symbolic links",
        "phone": "no image file",
        "pipe": "not a file",
    }


def test_a_folder_that_cannot_be_listed_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = write_images(tmp_path / "mine")
    scandir = os.scandir

    def refused(path: Any) -> Any:
        if str(path).endswith("set 1"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)  # root may list all
    assert causes(mine, tmp_path) == {"set-1": "permission denied"}


def test_names_that_are_no_unicode_are_read(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    for number, name in enumerate((b"caf\xe9", b"caf\xe8", b"\xff\xfe")):
        file = mine / f"{os.fsdecode(name)}.png"
        file.write_bytes(image_bytes(number))
        file.with_suffix(".txt").write_text("a caption")
    prepared(mine, tmp_path, validation_concepts=1)
    keys = {sample.key for sample in shards(tmp_path)}
    assert len(keys) == 3
    assert sum(key.startswith("caf-") for key in keys) == 2


def test_captions_in_capital_letters_are_found(tmp_path: Path) -> None:
    write_images(tmp_path / "mine", 1)
    (tmp_path / "mine/set 0/my.0.txt").rename(tmp_path / "mine/set 0/my.0.TXT")
    [sample] = brought(tmp_path / "mine", tmp_path / "raw").values()
    assert sample.captions == ("image 0", "number 0")


def test_captions_of_a_tsv_may_begin_with_a_quote(tmp_path: Path) -> None:
    mine = write_images(tmp_path / "mine")
    captions = ['"Hello" she said', "a cat", '"unfinished', 'it is 5" wide', '"', "a, b"]
    lines = [f"set {n % 2}/my.{n}.png\t{text}" for n, text in enumerate(captions)]
    (mine / "table.tsv").write_bytes("\r\n".join(["path\tcaption", *lines, ""]).encode())
    samples = brought(mine / "table.tsv", tmp_path / "raw")
    assert [sample.captions for sample in samples.values()] == [(text,) for text in captions]


def test_quoted_captions_of_a_csv_are_read(tmp_path: Path) -> None:
    mine = write_images(tmp_path / "mine", 2)
    text = 'path,caption\nset 0/my.0.png,"""Hi"", he said"\n\nset 1/my.1.png\n'
    (mine / "table.csv").write_text(text)
    said, silent = brought(mine / "table.csv", tmp_path / "raw").values()
    assert said.captions == ('"Hi", he said',)
    assert silent.captions == ()  # counted by prepare


def lines_of(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def listed(column: str, caption: str, numbers: Iterable[int]) -> list[dict[str, Any]]:
    """Rows as people's tables have them, with a column that we do not know."""
    return [
        {column: f"set {n % 2}/my.{n}.png", caption: f"image {n}", "width": 40} for n in numbers
    ]


def write_table(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".jsonl":
        path.write_text(lines_of(rows))
    else:
        WRITERS[path.suffix](pd.DataFrame(rows), path)
    return path


def captions(samples: dict[str, RawSample]) -> dict[str, tuple[str, ...]]:
    return {name: sample.captions for name, sample in samples.items()}


KINDS = [".csv", ".tsv", ".parquet", ".json", ".jsonl"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_list_of_the_original_ip_adapter(tmp_path: Path, kind: str) -> None:
    mine = write_images(tmp_path / "mine")
    table = write_table(tmp_path / f"list{kind}", listed("image_file", "text", range(6)))
    params = local.Params(path=str(table), root=str(mine))
    local.fetch(params, tmp_path / "raw")
    samples = list(local.read(tmp_path / "raw", params))
    assert [sample.captions for sample in samples] == [(f"image {n}",) for n in range(6)]
    assert [sample.image for sample in samples] == [image_bytes(n) for n in range(6)]


@pytest.mark.parametrize("kind", [".csv", ".parquet", ".jsonl"])
def test_a_folder_of_hugging_face(tmp_path: Path, kind: str) -> None:
    mine = write_images(tmp_path / "mine")
    write_table(mine / f"metadata{kind}", listed("file_name", "text", range(4)))
    samples = brought(mine, tmp_path / "raw")
    assert captions(samples) == {
        **{f"set {n % 2}/my.{n}.png": (f"image {n}",) for n in range(4)},
        # not in the table
        **{f"set {n % 2}/my.{n}.png": (f"image {n}", f"number {n}") for n in (4, 5)},
    }


def test_tables_of_inner_folders_hold_for_these(tmp_path: Path) -> None:
    mine = write_images(tmp_path / "mine", 4)
    rows = [{"file_name": f"my.{n}.png", "text": f"inner {n}"} for n in (0, 2, 99)]
    write_table(mine / "set 0/metadata.jsonl", rows)
    write_table(mine / "metadata.csv", listed("file_name", "text", range(3)))
    samples = brought(mine, tmp_path / "raw")
    assert captions(samples) == {
        "set 0/my.0.png": ("inner 0",),
        "set 0/my.2.png": ("inner 2",),
        "set 0/my.99.png": ("inner 99",),
        "set 1/my.1.png": ("image 1",),
        "set 1/my.3.png": ("image 3", "number 3"),
    }
    assert samples["set 0/my.99.png"].problem == "no such file or directory"


@pytest.mark.parametrize("kind", KINDS)
def test_columns_of_ones_own(tmp_path: Path, kind: str) -> None:
    mine = write_images(tmp_path / "mine")
    rows = [row | {"caption": "not this"} for row in listed("img", "alt", range(6))]
    table = write_table(mine / f"table{kind}", rows)
    params = local.Params(path=str(table), image_column="img", caption_column="alt")
    local.fetch(params, tmp_path / "raw")
    samples = list(local.read(tmp_path / "raw", params))
    assert [sample.captions for sample in samples] == [(f"image {n}",) for n in range(6)]
    with pytest.raises(UserError, match=r"no column 'pic' .it has img, alt, width, caption."):
        local.fetch(local.Params(path=str(table), image_column="pic"), tmp_path / "other")


@pytest.mark.parametrize("kind", [".parquet", ".json", ".jsonl"])
def test_a_list_of_captions_is_phrasings(tmp_path: Path, kind: str) -> None:
    mine = write_images(tmp_path / "mine", 2)
    rows: list[dict[str, Any]] = listed("path", "text", range(2))
    rows[0]["text"], rows[1]["text"] = ["one", "two"], None
    samples = brought(write_table(mine / f"table{kind}", rows), tmp_path / "raw")
    assert [sample.captions for sample in samples.values()] == [("one", "two"), ()]


def test_paths_that_are_none_are_counted(tmp_path: Path) -> None:
    mine = write_images(tmp_path / "mine", 1)
    unknown = f"not an image file ({', '.join(SUFFIXES)})"
    problems: dict[Any, str] = {
        "a\0.png": "not a path",
        "\ud800.png": "not a path",
        "x" * 300 + ".png": "file name too long",
        "gone.png": "no such file or directory",
        "set 0": unknown,
        None: unknown,
        5: unknown,
    }
    rows = [{"path": name, "text": "x"} for name in ["set 0/my.0.png", *problems]]
    samples = brought(write_table(mine / "table.json", rows), tmp_path / "raw")
    found = [sample.problem for sample in samples.values() if not sample.image]
    assert found == list(problems.values())


def test_captions_that_are_no_text_are_counted(tmp_path: Path) -> None:
    mine = write_images(tmp_path / "mine", 3)
    rows = listed("path", "text", range(3))
    rows[0]["text"], rows[1]["text"] = "half \ud83d", "zero \0"
    found = causes(write_table(mine / "table.json", rows), tmp_path)
    assert set(found.values()) == {"caption is not UTF-8"}
    assert len(found) == 2


NAMES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=60
).filter(lambda name: not name.startswith("."))
"""Of files that are not hidden."""


def caption(name: str) -> str:
    """A line of text that no other name has."""
    return f"{name.encode('unicode_escape').decode()!r}"


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    tar=NAMES.map(lambda name: f"{name.encode()[:200].decode(errors='ignore')}.tar"),
    folder=st.sampled_from([".", "", "v1.0", "../up", "/top", "a b/c"]) | NAMES,
    names=st.lists(NAMES, min_size=2, max_size=8, unique=True),
)
@example(tar="part-v1.5.tar", folder=".", names=["0001", "0002.jpg", "0002"])
@example(tar="a.tar", folder="v1.0", names=["a/b", "a-b", "a.b", "A-B"])
def test_tars_of_any_names_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, tar: str, folder: str, names: list[str]
) -> None:
    """Through fetch and prepare, and out of the shards: nothing lost, nothing exchanged."""
    tmp_path = tmp_path_factory.mktemp("names")
    with tarfile.open(tmp_path / tar, "w") as out:
        for kind in ("txt", "png"):
            for number, name in enumerate(names):
                data = image_bytes(number) if kind == "png" else caption(name).encode()
                info = tarfile.TarInfo(f"{folder}/{name}.{kind}" if folder else f"{name}.{kind}")
                info.size = len(data)
                out.addfile(info, BytesIO(data))
    manifest = prepared(tmp_path / tar, tmp_path, validation_concepts=1)
    assert manifest["dropped"] == {}
    assert sum(split["samples"] for split in manifest["splits"].values()) == len(names)
    found = {s.image.getpixel((12, 12)): s.captions for s in shards(tmp_path)}
    assert found == {
        (number, 99, 255 - number): (caption(name),) for number, name in enumerate(names)
    }
