"""From raw samples to shards: the same bytes, no leak between the splits, every drop counted."""

import errno
import os
import signal
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

import adapterbench.data.prepare as module
from adapterbench.core.config import DataParams, Section
from adapterbench.core.errors import UserError
from adapterbench.core.files import MANIFEST, read_json, sha256
from adapterbench.data.prepare import prepare
from adapterbench.data.sample import RawSample
from adapterbench.formats.shards import read_split, write_shard
from adapterbench.formats.tars import open_tar
from adapterbench.runs import workers

CONCEPTS, PER_CONCEPT = 12, 3
Source = Callable[[Path, Section], Iterator[RawSample]]


def data_params(**changes: Any) -> DataParams:
    values: dict[str, Any] = {
        "source": "emoji",
        "fetch": {},
        "resolution": 16,
        "split": "concepts",
        "held_out": None,
        "validation_concepts": 4,
        "images_per_concept": None,
        "samples_per_shard": 5,
        "seed": 0,
    }
    return DataParams(**values | changes)


def png(number: int, side: int = 16) -> bytes:
    image = Image.new("RGB", (side, side), (number % 256, number // 256, 99))
    image.putpixel((side // 2, side // 2), (255, 255, 255))
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def raw(number: int, shown: str | None, **changes: Any) -> RawSample:
    values: dict[str, Any] = {
        "key": f"k{number:03d}",
        "concept": shown,
        "image": png(number),
        "captions": (f"image {number}", f"number {number}"),
        "meta": {"style": "plain"},
    }
    return RawSample(**values | changes)


def good(_: Path, __: Section) -> Iterator[RawSample]:
    """Three samples of each of twelve concepts."""
    for number in range(CONCEPTS * PER_CONCEPT):
        yield raw(number, f"c{number // PER_CONCEPT}")


def spoilt(folder: Path, params: Section) -> Iterator[RawSample]:
    """The good ones with every kind of bad one between them."""
    yield raw(100, "c0", image=b"")
    yield raw(101, "c0", captions=("", "  "))
    yield raw(102, "c0", captions=())
    yield from good(folder, params)
    yield raw(103, "c1", image=png(0))
    yield raw(104, "c1", image=b"GIF89a, no more")
    yield raw(105, "c1", image=png(105)[:-30])
    blank = BytesIO()
    Image.new("RGB", (20, 20), "white").save(blank, "PNG")
    yield raw(106, "c1", image=blank.getvalue())
    bomb = BytesIO()
    Image.new("1", (4001, 4000)).save(bomb, "PNG")
    yield raw(107, "c1", image=bomb.getvalue())


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Callable[[Source], None]:
    """Sets what the raw files hold."""

    def use(read: Source) -> None:
        stand_in = SimpleNamespace(read=read, Params=Section, ATTRIBUTION={"plain": "ours"})
        monkeypatch.setattr(module, "load", lambda _package, _key: stand_in)

    use(good)
    return use


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def concepts(folder: Path, split: str) -> set[str]:
    return {sample.meta["concept"] for sample in read_split(folder, split)}


@pytest.mark.usefixtures("source")
def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        prepare(data_params(), tmp_path, tmp_path / name)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert len(contents(tmp_path / "a")) == 5 + 3 + 1  # 24 and 12 samples, 5 a shard


@pytest.mark.usefixtures("source")
def test_no_concept_is_on_both_sides_and_nothing_is_lost(tmp_path: Path) -> None:
    manifest = prepare(data_params(), tmp_path, tmp_path / "out")
    held_out = concepts(tmp_path / "out", "validation")
    assert len(held_out) == 4
    assert not held_out & concepts(tmp_path / "out", "train")
    both = [s for split in manifest["splits"] for s in read_split(tmp_path / "out", split)]
    assert {s.key for s in both} == {s.key for s in good(tmp_path, data_params())}
    assert len(both) == CONCEPTS * PER_CONCEPT
    by_key = {s.key: s for s in both}
    assert by_key["k007"].captions == ("image 7", "number 7")
    assert by_key["k007"].meta == {"concept": "c2", "style": "plain"}
    assert by_key["k007"].image.getpixel((0, 0)) == (7, 0, 99)


@pytest.mark.usefixtures("source")
def test_the_manifest_says_what_is_there(tmp_path: Path) -> None:
    manifest = prepare(data_params(), tmp_path, tmp_path / "out")
    assert manifest == read_json(tmp_path / "out" / MANIFEST)
    assert manifest["attribution"] == {"plain": "ours"}
    assert manifest["splits"]["train"]["concepts"] == 8
    assert [shard["samples"] for shard in manifest["splits"]["validation"]["shards"]] == [5, 5, 2]
    for split in manifest["splits"].values():
        assert split["samples"] == sum(shard["samples"] for shard in split["shards"])
        for shard in split["shards"]:
            assert shard["sha256"] == sha256(tmp_path / "out" / shard["name"])


def test_every_drop_is_counted_by_its_cause(
    tmp_path: Path, source: Callable[[Source], None]
) -> None:
    source(spoilt)
    manifest = prepare(data_params(), tmp_path, tmp_path / "out")
    assert manifest["dropped"] == {
        "blank image": 1,
        "duplicate image": 1,
        "no caption": 2,
        "no image in the set": 1,
        "not a readable image": 2,
        "too many pixels": 1,
    }
    assert {"key": "k103", "cause": "duplicate image"} in manifest["drops"]
    kept = sum(split["samples"] for split in manifest["splits"].values())
    assert kept == CONCEPTS * PER_CONCEPT
    # what is dropped moves nothing else
    source(good)
    prepare(data_params(), tmp_path, tmp_path / "clean")
    shards = contents(tmp_path / "out")
    shards.pop(MANIFEST)
    assert shards.items() <= contents(tmp_path / "clean").items()


def test_a_new_concept_moves_at_most_one_other(
    tmp_path: Path, source: Callable[[Source], None]
) -> None:
    prepare(data_params(), tmp_path, tmp_path / "a")

    def more(folder: Path, params: Section) -> Iterator[RawSample]:
        yield from good(folder, params)
        yield raw(200, "new")

    source(more)
    prepare(data_params(), tmp_path, tmp_path / "b")
    before, after = (concepts(tmp_path / name, "validation") for name in "ab")
    assert len(before - after) <= 1


@pytest.mark.usefixtures("source")
def test_the_seed_draws_another_split(tmp_path: Path) -> None:
    drawn = set()
    for seed in range(5):
        prepare(data_params(seed=seed), tmp_path, tmp_path / str(seed))
        drawn.add(frozenset(concepts(tmp_path / str(seed), "validation")))
    assert len(drawn) > 1


def test_images_are_resized(tmp_path: Path, source: Callable[[Source], None]) -> None:
    def large(_: Path, __: Section) -> Iterator[RawSample]:
        for number in range(3):
            yield raw(number, f"c{number}", image=png(number, side=50))

    source(large)
    prepare(data_params(resolution=24, validation_concepts=1), tmp_path, tmp_path / "out")
    assert [s.image.size for s in read_split(tmp_path / "out", "train")] == [(24, 24)] * 2


OWN_SPLIT = {"split": "source", "validation_concepts": None}
KEYS = st.text(st.characters(), max_size=150)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(keys=st.lists(KEYS, min_size=2, max_size=12, unique=True))
@example(keys=["./a.b/c", "a-b-c", "a.b-c", "A-B-C", "\0", "\udcff", "x" * 300])
def test_samples_of_any_keys_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, keys: list[str]
) -> None:
    tmp_path = tmp_path_factory.mktemp("keys")

    def named(_: Path, __: Section) -> Iterator[RawSample]:
        for number, key in enumerate(keys):
            yield raw(number, None, key=key)

    with pytest.MonkeyPatch.context() as patch:
        stand_in = SimpleNamespace(read=named, Params=Section, ATTRIBUTION={})
        patch.setattr(module, "load", lambda *_: stand_in)
        manifest = prepare(data_params(validation_concepts=1), tmp_path, tmp_path / "out")
    assert manifest["dropped"] == {}
    both = [s for split in manifest["splits"] for s in read_split(tmp_path / "out", split)]
    assert {s.captions[0] for s in both} == {f"image {n}" for n in range(len(keys))}
    assert len({s.key for s in both}) == len(both) == len(keys)
    assert all(s.meta["concept"] == s.key for s in both)


def test_a_key_that_comes_twice_is_counted(
    tmp_path: Path, source: Callable[[Source], None]
) -> None:
    """Its samples would share their noise and the names of their generated images."""

    def twice(folder: Path, params: Section) -> Iterator[RawSample]:
        yield from good(folder, params)
        yield raw(200, "c0", key="k000")

    source(twice)
    manifest = prepare(data_params(), tmp_path, tmp_path / "out")
    assert manifest["dropped"] == {"duplicate key": 1}


@pytest.mark.parametrize("own_split", [True, False])
def test_a_lack_of_images_names_its_real_cause(
    tmp_path: Path, source: Callable[[Source], None], own_split: bool
) -> None:
    def silent(_: Path, __: Section) -> Iterator[RawSample]:
        for number in range(9):
            captions = ("one that can be used",) if number in (0, 4) else ()
            split = ("train" if number < 6 else "validation") if own_split else None
            yield raw(number, f"c{number}", captions=captions, split=split)
        yield raw(9, "c9", image=b"GIF89a, no more", split="validation" if own_split else None)

    source(silent)
    with pytest.raises(UserError, match=r"dropped: 7 no caption, 1 not a readable image") as caught:
        prepare(data_params(**OWN_SPLIT if own_split else {}), tmp_path, tmp_path / "out")
    assert "correct those" in str(caught.value)


def test_a_lack_of_any_image_does_not_ask_for_fewer_concepts(
    tmp_path: Path, source: Callable[[Source], None]
) -> None:
    source(lambda *_: iter([raw(n, f"c{n}", captions=()) for n in range(9)]))
    with pytest.raises(
        UserError, match=r"0 concepts of at least 2 .dropped: 9 no caption.*"
    ) as caught:
        prepare(data_params(), tmp_path, tmp_path / "out")
    assert "lower" not in str(caught.value)


@pytest.mark.parametrize("held_out", [12, 13, 1000])
@pytest.mark.usefixtures("source")
def test_too_few_concepts_are_one_line(tmp_path: Path, held_out: int) -> None:
    with pytest.raises(UserError, match=f"validation_concepts = {held_out}.* 12 concepts"):
        prepare(data_params(validation_concepts=held_out), tmp_path, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "full")])
@pytest.mark.usefixtures("source")
def test_nothing_half_written_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    prepare(data_params(), tmp_path, tmp_path / "out")
    before = contents(tmp_path / "out")
    calls: list[Path] = []

    def fails(path: Path, samples: Any) -> dict[str, Any]:
        calls.append(path)
        if len(calls) == 3:
            raise error
        return write_shard(path, samples)

    monkeypatch.setattr(module, "write_shard", fails)
    with pytest.raises(type(error)):
        prepare(data_params(seed=1), tmp_path, tmp_path / "out")
    assert contents(tmp_path / "out") == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_damaged_raw_files_publish_nothing(
    tmp_path: Path, source: Callable[[Source], None]
) -> None:
    def damaged(folder: Path, params: Section) -> Iterator[RawSample]:
        yield from good(folder, params)
        raise UserError("google.tgz is missing or damaged")

    source(damaged)
    with pytest.raises(UserError):
        prepare(data_params(), tmp_path, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def with_split(_: Path, __: Section) -> Iterator[RawSample]:
    """Seven samples to train on, four to validate, one of them spoilt."""
    for number in range(7):
        yield raw(number, f"c{number}", split="train")
    for number in range(7, 10):
        yield raw(number, f"c{number}", split="validation")
    yield raw(10, "c10", split="validation", image=b"", problem="HTTP 404")


def test_a_split_of_the_source_is_kept_in_its_order(
    tmp_path: Path, source: Callable[[Source], None]
) -> None:
    source(with_split)
    manifest = prepare(
        data_params(split="source", validation_concepts=None), tmp_path, tmp_path / "out"
    )
    assert manifest["dropped"] == {"HTTP 404": 1}
    train, validation = manifest["splits"]["train"], manifest["splits"]["validation"]
    assert (train["samples"], train["concepts"]) == (7, 7)
    assert [shard["samples"] for shard in train["shards"]] == [5, 2]
    assert [shard["samples"] for shard in validation["shards"]] == [3]
    keys = [sample.key for sample in read_split(tmp_path / "out", "train")]
    assert keys == [f"k{number:03d}" for number in range(7)]


def test_a_split_of_the_source_is_streamed(
    tmp_path: Path, source: Callable[[Source], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more samples are read than a few portions before the one that is written."""
    monkeypatch.setattr(module, "AT_ONCE", 1)
    monkeypatch.setattr(workers, "MAX_INLINE", 0)
    monkeypatch.setattr(workers, "cores", lambda: 1)
    read: list[str] = []
    written: list[str] = []

    def counted(folder: Path, params: Section) -> Iterator[RawSample]:
        for sample in with_split(folder, params):
            assert len(read) - len(written) <= 4
            read.append(sample.key)
            yield sample

    def noted(path: Path, samples: Any) -> dict[str, Any]:
        def seen() -> Iterator[Any]:
            for sample in samples:
                written.append(sample.key)
                yield sample

        return write_shard(path, seen())

    monkeypatch.setattr(module, "write_shard", noted)
    source(counted)
    prepare(data_params(split="source", validation_concepts=None), tmp_path, tmp_path / "out")
    assert len(written) == 10


@pytest.mark.usefixtures("source")
def test_a_source_without_split_needs_a_number_of_concepts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"split = source, .* no split of its own"):
        prepare(data_params(split="source", validation_concepts=None), tmp_path, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_split_is_one_line(tmp_path: Path, source: Callable[[Source], None]) -> None:
    def train_alone(folder: Path, params: Section) -> Iterator[RawSample]:
        return (s for s in with_split(folder, params) if s.split == "train")

    source(train_alone)
    with pytest.raises(UserError, match="has no usable image for validation"):
        prepare(data_params(split="source", validation_concepts=None), tmp_path, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_drops_beyond_the_list_are_counted(
    tmp_path: Path, source: Callable[[Source], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LISTED", 3)
    source(spoilt)
    manifest = prepare(data_params(), tmp_path, tmp_path / "out")
    assert len(manifest["drops"]) == 3
    assert sum(manifest["dropped"].values()) == 8


def jpeg(number: int, side: int) -> bytes:
    image = Image.effect_noise((side, side), 40 + number).convert("RGB")
    file = BytesIO()
    image.save(file, "JPEG")
    return file.getvalue()


def test_a_packed_jpeg_keeps_its_bytes_where_it_needs_no_scaling(
    tmp_path: Path, source: Callable[[Source], None]
) -> None:
    files = {"k000": jpeg(0, 16), "k001": jpeg(1, 16), "k002": jpeg(2, 20), "k003": png(3)}

    def mixed(_: Path, __: Section) -> Iterator[RawSample]:
        for number, image in enumerate(files.values()):
            yield raw(number, f"c{number}", image=image)

    source(mixed)
    prepare(data_params(validation_concepts=1), tmp_path, tmp_path / "out")
    members: dict[str, bytes] = {}
    for path in (tmp_path / "out").glob("*.tar"):
        with open_tar(path) as tar:
            members |= {name: tar.read(name) for name in tar.members}
    assert members["k000.jpg"] == files["k000"]
    assert members["k001.jpg"] == files["k001"]
    assert {"k002.png", "k003.png"} <= members.keys()
    decoded = {
        s.key: s.image for n in ("train", "validation") for s in read_split(tmp_path / "out", n)
    }
    assert decoded["k000"].tobytes() == Image.open(BytesIO(files["k000"])).tobytes()


def test_processes_write_the_bytes_of_one(
    tmp_path: Path, source: Callable[[Source], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drops keep their order, too, whoever finds them."""
    source(spoilt)
    prepare(data_params(), tmp_path, tmp_path / "one")
    monkeypatch.setattr(module, "AT_ONCE", 3)
    monkeypatch.setattr(workers, "MAX_INLINE", 0)
    monkeypatch.setattr(workers, "cores", lambda: 2)
    prepare(data_params(), tmp_path, tmp_path / "two")
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


@pytest.mark.usefixtures("source")
def test_a_killed_worker_is_one_line_and_publishes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deadly(_: bytes) -> Image.Image:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    monkeypatch.setattr(module, "AT_ONCE", 3)
    monkeypatch.setattr(workers, "MAX_INLINE", 0)
    monkeypatch.setattr(module, "decode", deadly)
    with pytest.raises(UserError, match="a worker process was killed") as caught:
        prepare(data_params(), tmp_path, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
