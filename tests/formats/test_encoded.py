"""Encoded shards, written here by hand, are gathered by number across files."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from adapterbench.core.errors import UserError
from adapterbench.core.files import MANIFEST, read_json, sha256, write_json
from adapterbench.formats.encoded import COMMON, EncodedSplit

SIZES = [3, 1, 4]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three shards; sample n has latents n, embedding 10 n and texts 2 n, 2 n + 1, in two files."""
    common = {"empty": torch.full((2, 5), -1.0).half(), "train": torch.arange(16).view(8, 2)}
    save_file(common, tmp_path / COMMON)
    texts = torch.arange(16).half()[:, None, None].expand(-1, 2, 5)
    files = {"texts-00000.safetensors": texts[:11], "texts-00001.safetensors": texts[11:]}
    for file, part in files.items():
        save_file({"texts": part.contiguous()}, tmp_path / file)
    shards: list[dict[str, Any]] = []
    number = 0
    for size in SIZES:
        name = f"train-{len(shards):05d}.safetensors"
        numbers = torch.arange(number, number + size).half()
        tensors = {
            "latents": numbers[:, None, None, None].expand(size, 4, 2, 2).contiguous(),
            "image_embeds": (10 * numbers)[:, None].expand(size, 3).contiguous(),
        }
        save_file(tensors, tmp_path / name)
        row = {"concept": "c", "captions": ["a"]}
        rows = [row | {"key": f"k{n}"} for n in range(number, number + size)]
        index = tmp_path / f"{name}.json"
        write_json(index, {**listed(tmp_path / name), "samples": rows, "skipped": []})
        digest = {"index": index.name, "index_sha256": sha256(index)}
        shards.append({**listed(tmp_path / name), **digest, "samples": size})
        number += size
    facts = {
        "embed_dim": 3,
        "splits": {"train": shards},
        "texts": [listed(tmp_path / name) for name in files],
        "common": listed(tmp_path / COMMON),
    }
    write_json(tmp_path / MANIFEST, facts)
    return tmp_path


def listed(path: Path) -> dict[str, str]:
    """A file as a manifest has it."""
    return {"name": path.name, "sha256": sha256(path)}


def test_samples_are_gathered_by_number(folder: Path) -> None:
    split = EncodedSplit(folder, "train")
    index = torch.tensor([7, 0, 3, 2, 4, 0])
    batch = split.gather(index, torch.zeros(6))
    assert len(split) == 8
    assert split.embed_dim == 3
    assert split.samples[7]["key"] == "k7"
    assert (batch.latents.shape, batch.image_embeds.shape) == ((6, 4, 2, 2), (6, 3))
    assert torch.equal(batch.latents[:, 0, 0, 0], index.float())
    assert torch.equal(batch.image_embeds[:, 0], 10 * index.float())
    assert batch.latents.dtype == batch.image_embeds.dtype == batch.texts.dtype == torch.float32
    assert torch.equal(split.empty, torch.full((2, 5), -1.0))


def test_training_reads_no_captions(folder: Path) -> None:
    for path in folder.glob("train-*.json"):
        path.unlink()
    assert (
        len(EncodedSplit(folder, "train").gather(torch.tensor([7, 0]), torch.zeros(2)).texts) == 2
    )


def test_the_draw_picks_the_phrasing(folder: Path) -> None:
    split = EncodedSplit(folder, "train")
    almost_one = 1 - 2**-24
    draw = torch.tensor([0.0, 0.49, 0.5, almost_one])
    batch = split.gather(torch.tensor([5, 5, 5, 5]), draw)  # the second sample of its shard
    assert batch.texts.shape == (4, 2, 5)
    assert batch.texts[:, 0, 0].tolist() == [10, 10, 11, 11]


def test_a_batch_is_gathered_under_bf16(folder: Path) -> None:
    """Torch stacks no fp16 there on a CPU."""
    index = torch.tensor([7, 0])
    with torch.autocast("cpu", torch.bfloat16):
        batch = EncodedSplit(folder, "train").gather(index, torch.zeros(2))
    assert batch.latents[:, 0, 0, 0].tolist() == [7, 0]
    assert batch.latents.dtype == torch.float32


@pytest.mark.parametrize("name", ["train-00001.safetensors", "texts-00001.safetensors", COMMON])
@pytest.mark.parametrize("damage", ["missing", "cut", "empty", "garbage"])
def test_a_damaged_file_is_one_line(folder: Path, name: str, damage: str) -> None:
    path = folder / name
    data = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"cut": data[:-8], "empty": b"", "garbage": b"x" * 99}[damage])
    with pytest.raises(UserError, match="missing or damaged") as caught:
        EncodedSplit(folder, "train")
    assert str(path) in str(caught.value)
    assert str(caught.value).endswith(": make it again")


@pytest.mark.parametrize("name", ["train-00001.safetensors", "texts-00001.safetensors", COMMON])
@pytest.mark.parametrize("place", [-1, -8, -20])
def test_a_flipped_bit_is_never_trained_on(folder: Path, name: str, place: int) -> None:
    """It changes a number a little, and no structure."""
    path = folder / name
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"missing or damaged .its SHA-256 is") as caught:
        EncodedSplit(folder, "train").gather(torch.arange(8), torch.full((8,), 0.9))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_texts_are_compared_when_they_are_first_read(folder: Path) -> None:
    """There may be hundreds of gigabytes of them, of which a few rows are sampled."""
    path = folder / "texts-00001.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    split = EncodedSplit(folder, "train")
    split.gather(torch.arange(5), torch.zeros(5))
    with pytest.raises(UserError, match="texts-00001"):
        split.row(7)


def test_an_index_of_other_samples_is_found(folder: Path) -> None:
    index = folder / "train-00001.safetensors.json"
    index.write_text(index.read_text().replace('"k3"', '"k4"'))
    split = EncodedSplit(folder, "train")
    with pytest.raises(UserError, match="its SHA-256 is"):
        split.samples  # noqa: B018


@pytest.mark.parametrize(
    "change",
    [
        {"splits": []},
        {"splits": {"train": {}}},
        {"splits": {"train": [{"name": "../train.safetensors"}]}},
        {"splits": {"train": None}},
        {"splits": {}},
        {"texts": []},
        {"texts": ["texts-00000.safetensors"]},
        {"embed_dim": "3"},
        {"embed_dim": 3.5},
        {"embed_dim": -1},
        {"common": None},
    ],
)
def test_a_manifest_of_another_structure_is_one_line(folder: Path, change: dict[str, Any]) -> None:
    write_json(folder / MANIFEST, read_json(folder / MANIFEST) | change)
    with pytest.raises(UserError, match="make it again") as caught:
        EncodedSplit(folder, "train")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("index", ["[]", "null", '{"samples": []}', '{"samples": [{"key": 1}]}'])
def test_an_index_of_another_structure_is_one_line(folder: Path, index: str) -> None:
    (folder / "train-00000.safetensors.json").write_text(index)
    with pytest.raises(UserError, match="is not the index of an encoded shard") as caught:
        EncodedSplit(folder, "train").samples  # noqa: B018
    assert "\n" not in str(caught.value)


def test_a_missing_manifest_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"manifest\.json is missing"):
        EncodedSplit(tmp_path, "train")
