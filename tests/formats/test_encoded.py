"""Encoded shards, written here by hand, are gathered by number across files."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from adapterbench.core.errors import UserError
from adapterbench.core.files import MANIFEST, write_json
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
        write_json(tmp_path / f"{name}.json", {"samples": rows})
        shards.append({"name": name, "index": f"{name}.json", "samples": size})
        number += size
    facts = {"embed_dim": 3, "splits": {"train": shards}, "texts": [{"name": n} for n in files]}
    write_json(tmp_path / MANIFEST, facts)
    return tmp_path


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
    assert "dvc" in str(caught.value)


def test_a_missing_manifest_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"manifest\.json is missing"):
        EncodedSplit(tmp_path, "train")
