from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from safetensors.torch import load_file

from adapterbench.cli.architecture import Shapes
from adapterbench.cli.disk import count_shards, encoded_bytes, plain
from adapterbench.core.config import EncodeParams
from adapterbench.core.errors import UserError
from adapterbench.core.files import MANIFEST, write_json
from adapterbench.formats.shards import read_split

if TYPE_CHECKING:
    from toy_backbone import Toy


KINDS = {
    "empty": "texts",
    "zero_patches": "patches",
    "train": "phrasings",
    "validation": "phrasings",
}
"""Kind of each tensor in `common.safetensors`."""


@pytest.mark.parametrize("stored", [False, True], ids=["embeddings alone", "patches"])
def test_the_bytes_are_those_that_encode_writes(toy: "Toy", patches: "Toy", stored: bool) -> None:
    written: Counter[str] = Counter()
    data = patches if stored else toy
    params = toy.encode_params.model_copy(update={"patches": stored})
    for path in data.encoded.glob("*.safetensors"):
        for name, tensor in load_file(path).items():
            written[KINDS.get(name, name)] += tensor.nbytes
    shapes = Shapes((4, 4, 4), (16, 32), 24, (5, 32), text_encoders=1)
    expected = encoded_bytes(count_shards(data.shards), shapes, params)
    assert expected == dict(written)


def test_captions_are_counted_once(toy: "Toy") -> None:
    counted = count_shards(toy.shards)
    assert counted.samples == 24
    said = [s.captions for n in ("train", "validation") for s in read_split(toy.shards, n)]
    assert counted.captions == len({text for texts in said for text in texts})


def test_bytes_of_cc3m() -> None:
    """Two bytes a value: 4 x 64 x 64 latents, 77 x 768 text, 512 of the image embedding."""
    shapes = Shapes((4, 64, 64), (77, 768), 512, (50, 768), text_encoders=1)
    params = EncodeParams(
        image_encoder="ViT-B-32",
        pretrained=None,
        batch_size=1,
        fit="crop",
        patches=False,
        texts="stored",
    )
    sizes = encoded_bytes(plain(1000), shapes, params)
    assert sizes == {
        "latents": 32_768_000,
        "image_embeds": 1_024_000,
        "texts": 118_272 * 1001,
        "phrasings": 8_000,
    }
    live = params.model_copy(update={"texts": "live"})
    assert encoded_bytes(plain(1000), shapes, live) == {**sizes, "texts": 4 * 77 * 1001}
    # the class token and 7 x 7 patches
    patches = params.model_copy(update={"patches": True})
    expected = {**sizes, "patches": 2 * 50 * 768 * 1001}
    assert encoded_bytes(plain(1000), shapes, patches) == expected
    with pytest.raises(UserError, match="ViT-B-32 has no patch features"):
        encoded_bytes(plain(1), Shapes((4, 64, 64), (77, 768), 512, None, 1), patches)


def test_a_damaged_shard_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "train-00000.tar").write_bytes(b"no tar" * 200)
    shard = {"name": "train-00000.tar", "samples": 1}
    write_json(tmp_path / MANIFEST, {"splits": {"train": {"shards": [shard]}}})
    with pytest.raises(UserError, match=r"train-00000.tar is truncated or damaged"):
        count_shards(tmp_path)
