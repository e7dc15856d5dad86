"""Damaged files and parameters: one line that says what is wrong, or the values as they were.

Never a traceback, and never another value than the one that was written.
"""

import json
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from damages import DAMAGES, damaged, edit
from toy_backbone import Toy

from adapterbench.adapters.core.storage import load_adapter
from adapterbench.adapters.core.variant import load_variant
from adapterbench.core import config
from adapterbench.core.errors import UserError
from adapterbench.formats.encoded import EncodedSplit
from adapterbench.formats.shards import read_split
from adapterbench.frozen.load import load_part

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
SEED = 20261125


def check_one_line(error: UserError, what: str) -> None:
    """What a person is told is one line."""
    assert "\n" not in str(error), what


def shards(toy: Toy) -> Any:
    return [
        (sample.key, sample.image.tobytes(), sample.captions, sample.meta)
        for split in ("train", "validation")
        for sample in read_split(toy.shards, split)
    ]


def encoded(toy: Toy) -> Any:
    values: list[list[bytes] | list[str]] = []
    for split in ("train", "validation"):
        data = EncodedSplit(toy.encoded, split)
        index = torch.arange(len(data))
        batch = data.gather(index, torch.linspace(0, 0.99, len(data)))
        tensors = (batch.latents, batch.image_embeds, batch.texts, data.empty)
        values.append([tensor.numpy().tobytes() for tensor in tensors])
        values.append([json.dumps(sample, sort_keys=True) for sample in data.samples])
    return values


def adapter(toy: Toy) -> Any:
    made = load_adapter(toy.adapter, load_part(toy.backbone, "unet"))
    return [weight.detach().numpy().tobytes() for weight in made.trainable_parameters()]


KINDS: dict[str, tuple[Callable[[Toy], Any], str, int]] = {
    "shards": (shards, "shards", 170),
    "encoded": (encoded, "encoded", 170),
    "adapter": (adapter, "models/toy", 160),
}
"""By kind of file: how it is read, its folder, how many damages."""


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_refused_or_read_as_they_were(
    kind: str, toy: Toy, workplace: Path
) -> None:
    read, folder, count = KINDS[kind]
    draw = random.Random(f"{SEED}-{kind}")
    expected = read(toy)
    copy = Toy(workplace / "toy")
    for part in toy.root.iterdir():
        target = copy.root / part.name
        target.parent.mkdir(exist_ok=True)
        if part.is_dir():
            shutil.copytree(part, target)
    outcomes: Counter[str] = Counter()
    for number in range(count):
        files = sorted(path for path in (copy.root / folder).rglob("*") if path.is_file())
        path = draw.choice(files)
        whole = path.read_bytes()
        what = f"{kind} {number}, seed {SEED}: {damaged(path, draw)} of {path.name}"
        try:
            assert read(copy) == expected, f"another value without a word: {what}"
            outcomes["read as it was"] += 1
        except UserError as error:
            check_one_line(error, what)
            outcomes["refused"] += 1
        except AssertionError:
            raise
        except Exception as error:
            raise AssertionError(f"a traceback: {what}") from error
        path.write_bytes(whole)
    print(kind, dict(outcomes))
    assert outcomes["refused"] > count / 2


def test_damaged_parameters_are_refused_or_read(workplace: Path) -> None:
    text = (ROOT / "params.yaml").read_text()
    draw = random.Random(f"{SEED}-params")
    path = workplace / "params.yaml"
    sections: dict[str, type[config.Section]] = {
        "data": config.DataParams,
        "backbone": config.BackboneParams,
        "encode": config.EncodeParams,
        "train": config.TrainParams,
        "sample": config.SampleParams,
        "illustrate": config.IllustrateParams,
        "score": config.ScoreParams,
        "compare": config.CompareParams,
    }
    outcomes: Counter[str] = Counter()
    for number in range(300):
        if draw.random() < 0.6:
            tree = yaml.safe_load(text)
            edit(tree, draw)
            path.write_text(yaml.safe_dump(tree), encoding="utf-8")
            what = "edit"
        else:
            damage = draw.choice(DAMAGES)
            path.write_bytes(damage(text.encode(), draw))
            what = damage.__name__
        try:
            for name, section in sections.items():
                config.load_params(section, name)
            config.load_bases()
            for variant in config.load_rows():
                config.load_train(variant)
                load_variant(variant)
            outcomes["read"] += 1
        except UserError as error:
            check_one_line(error, f"{number}, seed {SEED}: {what}")
            outcomes["refused"] += 1
        except Exception as error:
            raise AssertionError(f"a traceback: {number}, seed {SEED}: {what}") from error
    print("params", dict(outcomes))
    assert outcomes["refused"] > 100
