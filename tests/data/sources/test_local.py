"""The user's own pictures, from a folder, a table and tars, through `prepare` to shards."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import webdataset as wds
from PIL import Image

from adapterbench.core.config import DataParams, parse
from adapterbench.core.errors import UserError
from adapterbench.data.prepare import prepare
from adapterbench.data.sample import RawSample
from adapterbench.data.sources import local
from adapterbench.formats.shards import Sample, read_split


def picture(number: int, kind: str = "PNG") -> bytes:
    image = Image.new("RGB", (40, 30), (number, 99, 255 - number))
    image.paste("white", (0, 0, 20, 20))
    file = BytesIO()
    image.save(file, kind)
    return file.getvalue()


def write_pictures(folder: Path, count: int = 6) -> Path:
    for number in range(count):
        path = folder / f"set {number % 2}" / f"my.{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
        path.with_suffix(".txt").write_text(f"picture {number}\nnumber {number}\n")
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
        "validation_concepts": 2,
        "samples_per_shard": 3,
        "seed": 0,
    }
    params = parse(DataParams, values | changes, "data")
    local.fetch(parse(local.Params, params.fetch, "data.fetch"), tmp_path / "raw")
    return prepare(params, tmp_path / "raw", tmp_path / "shards")


def shards(tmp_path: Path) -> list[Sample]:
    return [s for name in ("train", "validation") for s in read_split(tmp_path / "shards", name)]


def test_a_folder_becomes_shards(tmp_path: Path) -> None:
    manifest = prepared(write_pictures(tmp_path / "mine"), tmp_path)
    assert manifest["dropped"] == {}
    assert [manifest["splits"][name]["samples"] for name in ("train", "validation")] == [4, 2]
    assert manifest["attribution"] == {"local": "the user's own pictures"}
    by_path = {sample.meta["path"]: sample for sample in shards(tmp_path)}
    sample = by_path["set 1/my.3.png"]
    assert sample.captions == ("picture 3", "number 3")
    assert sample.image.size == (16, 16)
    assert sample.key.startswith("set-1-my-3-")


def test_pictures_are_kept_as_they_are(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "mine", 2)
    (folder / "photo.JPG").write_bytes(picture(9, "JPEG"))
    (folder / "photo.txt").write_text("a photo", encoding="utf-8-sig")
    (folder / "notes.md").write_text("no picture")
    samples = brought(folder, tmp_path / "raw")
    assert list(samples) == ["photo.JPG", "set 0/my.0.png", "set 1/my.1.png"]
    assert samples["photo.JPG"].image == picture(9, "JPEG")
    assert samples["photo.JPG"].captions == ("a photo",)


def test_two_fetches_write_the_same_bytes(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "mine")
    for name in "ab":
        brought(folder, tmp_path / name)
    tars = [[path.read_bytes() for path in sorted((tmp_path / n).iterdir())] for n in "ab"]
    assert tars[0] == tars[1]
    assert len(tars[0]) == 1


def test_many_pictures_are_several_tars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "PER_TAR", 4)
    samples = brought(write_pictures(tmp_path / "mine"), tmp_path / "raw")
    assert [path.name for path in sorted((tmp_path / "raw").iterdir())] == [
        "00000.tar",
        "00001.tar",
    ]
    assert len(samples) == 6


def test_another_picture_changes_no_key(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "mine")
    before = {sample.key for sample in brought(folder, tmp_path / "a").values()}
    (folder / "a.png").write_bytes(picture(77))
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
    folder = write_pictures(tmp_path / "mine")
    rows = [("set 0/my.0.png", "NA", "flag"), ("set 1/my.1.png", "two, three", "")]
    rows += [("set 0/my.0.png", "of Namibia", "flag"), (str(folder / "set 0/my.2.png"), "x", "x")]
    table = folder / f"table{kind}"
    WRITERS[kind](pd.DataFrame(rows, columns=["path", "caption", "concept"]), table)
    samples = brought(table, tmp_path / "raw")
    assert list(samples) == ["set 0/my.0.png", "set 1/my.1.png", str(folder / "set 0/my.2.png")]
    assert samples["set 0/my.0.png"].captions == ("NA", "of Namibia")
    assert samples["set 0/my.0.png"].concept == "flag"
    assert samples["set 1/my.1.png"].concept == samples["set 1/my.1.png"].key
    assert samples["set 0/my.0.png"].image == picture(0)


def test_a_concept_falls_on_one_side(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "mine", 12)
    rows = [(f"set {n % 2}/my.{n}.png", f"picture {n}", f"c{n % 4}") for n in range(12)]
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
    folder = write_pictures(tmp_path / "mine")
    (folder / "cut.png").write_bytes(picture(50)[:-30])
    (folder / "page.jpg").write_text("<html>")
    (folder / "lonely.png").write_bytes(picture(51))
    (folder / "again.png").write_bytes(picture(0))
    names = ["cut.png", "page.jpg", "lonely.png", "again.png", "gone.png", "phone.heic"]
    names += [f"set {n % 2}/my.{n}.png" for n in range(6)]
    table = folder / "table.csv"
    rows = [(name, "" if name == "lonely.png" else name) for name in names]
    pd.DataFrame(rows, columns=["path", "caption"]).to_csv(table, index=False)
    manifest = prepared(table, tmp_path)
    unsupported = next(cause for cause in manifest["dropped"] if cause.startswith("not a picture"))
    assert manifest["dropped"] == {
        "duplicate picture": 1,
        "no caption": 1,
        "no such file or directory": 1,
        "not a readable image": 2,
        unsupported: 1,
    }
    assert len(shards(tmp_path)) == 6


def write_tars(folder: Path, *names: str) -> None:
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        with wds.TarWriter(str(folder / name)) as tar:
            for key in range(2):
                data = picture(10 * number + key)
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
    write_pictures(tmp_path / "mine")
    assert len(brought("~/mine", tmp_path / "raw")) == 6


def test_what_is_wrong_with_a_path_is_one_line(tmp_path: Path) -> None:
    raw, mine = tmp_path / "raw", tmp_path / "mine"
    assert "neither a folder nor a .csv" in refusal(mine, raw)
    assert "matches no file" in refusal(mine / "*.tar", raw)
    mine.mkdir()
    assert "has no picture (jpg" in refusal(mine, raw)
    (mine / "a.png").write_bytes(picture(0))
    assert "has a caption: put one beside each, such as a.txt" in refusal(mine, raw)
    (mine / "a.zip").write_bytes(b"PK")
    assert "neither a folder" in refusal(mine / "a.zip", raw)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (b"file,caption\na.png,x\n", "has no column 'path' .it has file, caption."),
        (b"path,caption\nb.png,x\n", "none of the 1 files"),
        (b"path,caption\na.png,x,y,z\na,b,c\n,d,e,f,g", "cannot be read"),
        (b"path,caption\n\xff\xfe", "cannot be read"),
        (b"", "cannot be read"),
    ],
)
def test_a_bad_table_is_one_line(tmp_path: Path, text: bytes, cause: str) -> None:
    table = tmp_path / "table.csv"
    table.write_bytes(text)
    with pytest.raises(UserError, match=cause) as caught:
        local.fetch(local.Params(path=str(table)), tmp_path / "raw")
    assert "\n" not in str(caught.value)


def test_a_bad_parquet_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "table.parquet").write_bytes(b"PAR1, no more")
    assert "cannot be read" in refusal(tmp_path / "table.parquet", tmp_path / "raw")


def test_two_tars_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder in "ab":
        write_tars(tmp_path / folder, "set.tar")
    with pytest.raises(UserError, match=r"the name set\.tar: rename one"):
        local.fetch(local.Params(path=str(tmp_path / "[ab]/*.tar")), tmp_path / "raw")


def test_a_damaged_tar_is_one_line(tmp_path: Path) -> None:
    write_tars(tmp_path / "mine", "set.tar")
    path = tmp_path / "mine/set.tar"
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(UserError, match=r"set\.tar is missing, truncated or damaged"):
        prepared(path, tmp_path)
