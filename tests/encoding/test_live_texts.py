"""Token ids in place of text embeddings: what is kept, and that training and sampling see no other.

Stored embeddings are rounded to fp16 and live ones are not, which is all that may differ.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import chdir
from typing import Any

import numpy as np
import pytest
import torch
import toy_backbone
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from torch import Tensor
from toy_backbone import Toy
from training.test_adapter import train

import adapterbench.training.adapter as module
from adapterbench.cli.architecture import Shapes
from adapterbench.cli.disk import count_shards, encoded_bytes
from adapterbench.encoding.shards import encode
from adapterbench.formats.encoded import EncodedSplit
from adapterbench.frozen.conditions import Texts
from adapterbench.frozen.load import load_part
from adapterbench.frozen.texts import TextEncoders, as_texts, load_text_encoders
from adapterbench.sampling.sampler import Sampler

SPLITS = ("train", "validation")
ROUNDED: dict[str, Any] = {"rtol": 2e-3, "atol": 2e-3}
"""fp16."""


@pytest.fixture(scope="module")
def live(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """The toy project with token ids."""
    project = Toy(tmp_path_factory.mktemp("live"))
    for name in ("shards", "backbone", "models", "neutral_evaluator"):
        (project.root / name).symlink_to(toy.root / name)
    params = toy.encode_params.model_copy(update={"texts": "live"})
    with chdir(project.root):
        encode(params, project.shards, project.backbone, project.encoded)
    return project


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """A process has one precision for life; a test has its own."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("split", SPLITS)
def test_token_ids_are_read_back(live: Toy, split: str) -> None:
    tokenizer = load_part(live.backbone, "tokenizer")
    data = EncodedSplit(live.encoded, split)
    assert data.live
    for number, sample in enumerate(data.samples):
        said = sample["captions"]
        draws = (torch.arange(3) + 0.5) / 3  # no caption has more phrasings
        found = data.gather(torch.full((3,), number), draws).texts
        expected = tokenizer(said, padding="max_length", max_length=16, truncation=True).input_ids
        assert found.dtype == torch.int32
        assert {tuple(row) for row in found.tolist()} == set(map(tuple, expected))
    assert data.empty.tolist() == tokenizer("", padding="max_length", max_length=16).input_ids


def test_all_else_has_the_same_bytes(toy: Toy, live: Toy) -> None:
    names = [path.name for path in toy.encoded.iterdir()]
    assert sorted(names) == sorted(path.name for path in live.encoded.iterdir())
    for name in names:
        if name.startswith(SPLITS):
            assert (live.encoded / name).read_bytes() == (toy.encoded / name).read_bytes()


def test_the_plan_knows_the_bytes(live: Toy) -> None:
    written: Counter[str] = Counter()
    for path in live.encoded.glob("*.safetensors"):
        for name, tensor in load_file(path).items():
            written[{"empty": "texts"}.get(name, "phrasings" if name in SPLITS else name)] += (
                tensor.nbytes
            )
    shapes = Shapes((4, 4, 4), (16, 32), 24, None, text_encoders=1)
    params = live.encode_params.model_copy(update={"texts": "live"})
    expected = encoded_bytes(count_shards(live.shards), shapes, params)
    assert expected == dict(written)


def test_live_embeddings_are_the_stored_ones(toy: Toy, live: Toy) -> None:
    encoders = load_text_encoders(toy.backbone)
    kept, ids = (EncodedSplit(each.encoded, "train") for each in (toy, live))
    numbers = torch.arange(len(kept))
    expected, found = (data.gather(numbers, torch.zeros(len(kept))).texts for data in (kept, ids))
    assert as_texts(expected, None).embeds is expected
    torch.testing.assert_close(as_texts(found, encoders).embeds, expected, **ROUNDED)
    empty = as_texts(ids.empty[None], encoders).embeds[0]
    torch.testing.assert_close(empty, kept.empty, **ROUNDED)


def losses(project: Toy, out: str) -> list[float]:
    return [loss for _, loss in train(project, out, steps=6, log_every=1).losses]


@pytest.mark.usefixtures("workplace")
def test_live_training_has_the_same_loss_curve(
    toy: Toy, live: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To 1e-6 where live embeddings are rounded as stored ones are, to 1e-4 where they are not."""
    stored = losses(toy, "stored")
    assert losses(live, "live") == pytest.approx(stored, rel=1e-4)

    def rounded(texts: Tensor, encoders: TextEncoders | None) -> Texts:
        return as_texts(texts, encoders).map(lambda tensor: tensor.half().float())

    monkeypatch.setattr(module, "as_texts", rounded)
    assert losses(live, "rounded") == pytest.approx(stored, rel=1e-6)


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(("precision", "dtype"), [("no", torch.float32), ("bf16", torch.bfloat16)])
def test_the_text_encoder_runs_frozen_in_the_precision_of_the_training(
    live: Toy, monkeypatch: pytest.MonkeyPatch, precision: str, dtype: torch.dtype
) -> None:
    seen = []

    def noted(texts: Tensor, encoders: TextEncoders) -> Texts:
        found = as_texts(texts, encoders)
        weights = list(encoders.models[0].parameters())
        learns = any(weight.requires_grad for weight in weights)
        seen.append((weights[0].dtype, found.embeds.requires_grad, learns))
        return found

    monkeypatch.setattr(module, "as_texts", noted)
    train(live, "out", mixed_precision=precision, steps=2)
    assert len(seen) == 3  # the empty caption, then each step
    assert set(seen) == {(dtype, False, False)}


@pytest.mark.usefixtures("workplace")
def test_images_are_sampled_from_live_texts(toy: Toy, live: Toy) -> None:
    images = []
    for project in (toy, live):
        adapter = project.adapter
        sampler = Sampler(toy_backbone.SAMPLE, project.encoded, project.backbone, adapter)
        images.append(np.stack([np.asarray(i) for i in sampler.make(sampler.image_ids(), True)]))
    difference = np.abs(images[0].astype(int) - images[1])
    assert difference.max() <= 2  # of 255
