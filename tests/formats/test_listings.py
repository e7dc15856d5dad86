"""Images that lie in tars already: none is copied, and they come back as packed ones do."""

import errno
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

import adapterbench.data.prepare as module
from adapterbench.core.config import DataParams, Section
from adapterbench.core.errors import UserError
from adapterbench.core.files import MANIFEST, read_json
from adapterbench.data.prepare import prepare
from adapterbench.data.sample import RawSample, read_tar
from adapterbench.formats.shards import Sample, read_captions, read_shard, read_split
from adapterbench.formats.shards import find_shards as find

SPLITS = ("train", "validation")
COUNT = 9


def jpeg(number: int, size: tuple[int, int] = (40, 30)) -> bytes:
    image = Image.new("RGB", size, (20 * number, 99, 255 - 20 * number))
    image.paste("white", (0, 0, 20, 20))
    file = BytesIO()
    image.save(file, "JPEG")
    return file.getvalue()


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, BytesIO(data))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Two tars, whose files lie in no order."""
    for tar in range(2):
        numbers = range(tar, COUNT, 2)
        images = {f"{n:03d}.jpg": jpeg(n) for n in numbers}
        texts = {f"{n:03d}.txt": f"image {n}".encode() for n in numbers}
        facts = {f"{n:03d}.json": json.dumps({"url": f"http://x/{n}"}).encode() for n in numbers}
        write_tar(tmp_path / f"raw/{tar}.tar", images | texts | facts)
    return tmp_path / "raw"


def params(**changes: Any) -> DataParams:
    values: dict[str, Any] = {
        "source": "tars",
        "fetch": {},
        "resolution": 16,
        "split": "concepts",
        "held_out": None,
        "validation_concepts": 3,
        "images_per_concept": None,
        "samples_per_shard": 4,
        "seed": 0,
    }
    return DataParams(**values | changes)


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Sets whether the source says where its images lie."""

    def use(placed: bool) -> None:
        def read(raw: Path, _: Section) -> Iterator[RawSample]:
            for tar in sorted(raw.glob("*.tar")):
                for sample in read_tar(tar):
                    yield sample if placed else dataclass_without_place(sample)

        stand_in = SimpleNamespace(read=read, Params=Section, ATTRIBUTION={})
        monkeypatch.setattr(module, "load", lambda *_: stand_in)

    use(True)
    return use


def dataclass_without_place(sample: RawSample) -> RawSample:
    """As a source has it whose images lie in no tar."""
    return RawSample(key=sample.key, image=sample.image, captions=sample.captions, meta=sample.meta)


def everything(folder: Path) -> list[tuple[object, ...]]:
    samples = [sample for split in SPLITS for sample in read_split(folder, split)]
    return [(s.key, s.image.tobytes(), s.captions, s.meta) for s in samples]


@pytest.mark.usefixtures("source")
def test_no_image_is_copied(raw: Path, tmp_path: Path) -> None:
    manifest = prepare(params(), raw, tmp_path / "shards")
    names = sorted(path.name for path in (tmp_path / "shards").iterdir())
    assert names == [MANIFEST, "train-00000.json", "train-00001.json", "validation-00000.json"]
    assert [shard["samples"] for shard in manifest["splits"]["train"]["shards"]] == [4, 2]
    listing = read_json(tmp_path / "shards/train-00000.json")
    assert listing["root"] == "../raw"
    row = listing["samples"][0]
    with (raw / row["tar"]).open("rb") as file:
        file.seek(row["offset"])
        assert file.read(row["size"]) == jpeg(int(row["key"]))


def test_listed_images_come_back_as_packed_ones(
    raw: Path, tmp_path: Path, source: Callable[[bool], None]
) -> None:
    prepare(params(), raw, tmp_path / "listed")
    source(False)
    prepare(params(), raw, tmp_path / "packed")
    assert {path.suffix for path in (tmp_path / "packed").iterdir()} == {".tar", ".json"}
    listed, packed = (everything(tmp_path / name) for name in ("listed", "packed"))
    assert listed == packed
    assert len(listed) == COUNT
    first, second = (read_json(tmp_path / name / MANIFEST) for name in ("listed", "packed"))
    assert first["dropped"] == second["dropped"] == {}


@pytest.mark.usefixtures("source")
def test_only_wanted_images_are_decoded(raw: Path, tmp_path: Path) -> None:
    prepare(params(), raw, tmp_path / "shards")
    [first, *_] = find(tmp_path / "shards", "train")
    assert len(list(read_captions(first))) == 4
    keys = [sample.key for sample in read_shard(first)]
    (raw / "1.tar").unlink()
    even = {key for key in keys if int(key) % 2 == 0}
    assert {sample.key for sample in read_shard(first, keys=even)} == even
    assert len(list(read_captions(first))) == 4


@pytest.mark.usefixtures("source", "raw")
def test_it_reads_in_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As DVC moves a project, or a person; the working folder does not count."""
    monkeypatch.chdir(tmp_path)
    prepare(params(), Path("raw"), Path("shards"))
    before = everything(Path("shards"))
    (tmp_path / "elsewhere").mkdir()
    for name in ("raw", "shards"):
        os.rename(name, f"elsewhere/{name}")  # noqa: PTH104
    assert everything(Path("elsewhere/shards")) == before


@pytest.mark.usefixtures("source")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("gone", r"0\.tar, which holds the image of \d+, cannot be read \(No such file"),
        ("cut", r"0\.tar has changed since its images were listed"),
        ("another image", r"0\.tar has changed since its images were listed"),
        ("shifted", r"0\.tar has changed since its images were listed"),
        ("a folder", r"0\.tar, which holds the image of \d+, cannot be read"),
    ],
)
def test_a_tar_that_changed_is_one_line(
    raw: Path, tmp_path: Path, damage: str, message: str
) -> None:
    prepare(params(), raw, tmp_path / "shards")
    tar = raw / "0.tar"
    data = tar.read_bytes()
    tar.unlink()
    match damage:
        case "cut":
            tar.write_bytes(data[:2000])
        case "another image":
            tar.write_bytes(
                data.replace(jpeg(2)[-20:-4], bytes(16)).replace(jpeg(4)[-20:-4], bytes(16))
            )
        case "shifted":
            tar.write_bytes(data[512:])
        case "a folder":
            tar.mkdir()
    with pytest.raises(UserError, match=message) as caught:
        everything(tmp_path / "shards")
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("source")
@pytest.mark.parametrize(
    "change",
    [
        {"offset": -1},
        {"size": 2**40},
        {"sha256": "no digest"},
        {"captions": []},
        {"tar": 5},
    ],
)
def test_a_damaged_listing_is_one_line(raw: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    prepare(params(), raw, tmp_path / "shards")
    path = tmp_path / "shards/train-00000.json"
    path.write_text("{")
    with pytest.raises(UserError, match=r"train-00000\.json is truncated or damaged"):
        everything(tmp_path / "shards")  # by its digest
    manifest = read_json(tmp_path / "shards" / MANIFEST)
    [shard, *_] = manifest["splits"]["train"]["shards"]
    del shard["sha256"]  # as where none was noted
    (tmp_path / "shards" / MANIFEST).write_text(json.dumps(manifest))
    prepared = {"root": "../raw", "resolution": 16}
    row = {"key": "0", "tar": "0.tar", "offset": 0, "size": 1, "sha256": "0" * 64}
    rows = [{**row, "captions": ["a"], "meta": {}} | change] * 4
    path.write_text(json.dumps(prepared | {"samples": rows}))
    with pytest.raises(UserError, match=r"train-00000\.json is not a listing") as caught:
        everything(tmp_path / "shards")
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("source")
def test_what_a_header_does_not_show_is_counted_when_it_is_decoded(
    raw: Path, tmp_path: Path
) -> None:
    white = BytesIO()
    Image.new("RGB", (20, 20), "white").save(white, "JPEG")
    files = {"a.jpg": jpeg(3)[:-20], "b.jpg": white.getvalue(), "c.jpg": b"<html>"}
    texts = {name.replace("jpg", "txt"): b"a caption" for name in files}
    write_tar(raw / "2.tar", files | texts)
    manifest = prepare(params(), raw, tmp_path / "shards")
    assert manifest["dropped"] == {"not a readable image": 1}
    bad: list[dict[str, str]] = []
    kept: list[Sample] = [
        s for split in SPLITS for s in read_split(tmp_path / "shards", split, bad)
    ]
    assert len(kept) == COUNT
    causes = {row["key"]: row["cause"] for row in bad}
    assert causes == {"a": "not a readable image", "b": "blank image"}


@pytest.mark.usefixtures("source")
@pytest.mark.parametrize("mode", ["gz", "sparse"])
def test_what_does_not_lie_in_its_tar_as_it_is_is_packed(
    raw: Path, tmp_path: Path, mode: str
) -> None:
    prepare(params(), raw, tmp_path / "listed")
    expected = everything(tmp_path / "listed")
    for path in raw.glob("*.tar"):
        with tarfile.open(path) as tar:
            files = {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
        with tarfile.open(path, "w:gz" if mode == "gz" else "w") as tar:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                if mode == "sparse" and name.endswith("jpg"):
                    facts = {"GNU.sparse.map": f"0,{len(data)}", "GNU.sparse.size": str(len(data))}
                    info.pax_headers = facts
                tar.addfile(info, BytesIO(data))
    manifest = prepare(params(), raw, tmp_path / "packed")
    names = [shard["name"] for split in manifest["splits"].values() for shard in split["shards"]]
    assert all(name.endswith(".tar") for name in names)
    assert everything(tmp_path / "packed") == expected


@pytest.mark.usefixtures("source")
def test_a_full_disk_keeps_what_was_there(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(params(), raw, tmp_path / "shards")
    before = {path.name: path.read_bytes() for path in (tmp_path / "shards").iterdir()}

    def full(path: Path, *_: Any) -> None:
        path.write_text("{")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "write_listing", full)
    with pytest.raises(OSError, match="No space"):
        prepare(params(seed=1), raw, tmp_path / "shards")
    assert {path.name: path.read_bytes() for path in (tmp_path / "shards").iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw", "shards"]
