"""Vectors of an evaluator: of length one, in order, whatever the size of a batch."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from toy_backbone import Toy, toy_image

from adapterbench.core.config import EvaluatorParams
from adapterbench.core.errors import UserError
from adapterbench.scoring.evaluator import Evaluator, Folders, load_evaluator

COLOURS = [(level, 255 - level, 7) for level in range(0, 250, 50)]
IMAGES = [Image.new("RGB", (2, 2), colour) for colour in COLOURS]


def first_pixels(images: list[Image.Image]) -> Tensor:
    return torch.tensor([image.getpixel((0, 0)) for image in images], dtype=torch.float32)


def lengths(texts: list[str]) -> Tensor:
    return torch.tensor([[len(text), 1.0] for text in texts])


@pytest.mark.parametrize("size", [1, 2, 5, 64])
def test_vectors_keep_direction_and_order(size: int) -> None:
    batches: list[int] = []

    def network(images: list[Image.Image]) -> Tensor:
        batches.append(len(images))
        return first_pixels(images)

    made = Evaluator(network, None, size).images(IMAGES)
    expected = first_pixels(IMAGES)
    torch.testing.assert_close(made, expected / expected.norm(dim=1, keepdim=True))
    assert max(batches) == min(size, len(IMAGES))
    assert sum(batches) == len(IMAGES)


def test_texts_are_read_by_what_reads_them() -> None:
    made = Evaluator(first_pixels, lengths, 2).texts(["", "abc", "a"])
    root = 10**0.5
    expected = torch.tensor([[0, 1], [3 / root, 1 / root], [0.5**0.5, 0.5**0.5]])
    torch.testing.assert_close(made, expected)
    with pytest.raises(TypeError, match="no text encoder"):
        Evaluator(first_pixels, None, 2).texts(["a"])


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"kind": "vgg"}, r"score.evaluators.clip.kind: .*vgg.*open_clip.*timm"),
        ({"kind": "timm"}, r"score.evaluators.clip.resolution is missing"),
        (
            {"kind": "open_clip", "model": "m", "pretrained": None, "batch_size": 1, "side": 2},
            r"score.evaluators.clip.side is not a parameter",
        ),
    ],
)
def test_bad_fields_are_one_line(fields: dict[str, Any], line: str, tmp_path: Path) -> None:
    params = EvaluatorParams.model_validate(fields)
    with pytest.raises(UserError, match=line):
        load_evaluator(params, Folders(tmp_path, tmp_path), "score.evaluators.clip")


def test_both_kinds_are_loaded_by_name(toy: Toy) -> None:
    params = toy.score_params().evaluators
    clip = load_evaluator(params.clip, toy.folders, "clip")
    assert params.neutral is not None
    neutral = load_evaluator(params.neutral, toy.folders, "neutral")
    shown = [toy_image("ring", "red"), toy_image("bar", "blue")]
    for evaluator in (clip, neutral):
        vectors = evaluator.images(shown)
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
        assert not vectors[0].equal(vectors[1])
    assert clip.text_embeds is not None
    assert clip.texts(["a ring"]).shape[1] == clip.images(shown).shape[1]
    assert neutral.text_embeds is None
