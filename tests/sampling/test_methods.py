"""All methods of a split: which images each has, and that another split gives other items."""

from pathlib import Path
from typing import Any

import pytest
import toy_backbone
from toy_backbone import VARIANT, Toy

from adapterbench.core.config import SampleParams
from adapterbench.core.errors import UserError
from adapterbench.formats.encoded import EncodedSplit
from adapterbench.formats.generated import find_tars, read_names
from adapterbench.sampling.methods import Inputs, sample_methods, training_free_method
from adapterbench.sampling.sampler import Sampler

FREE: dict[str, Any] = {"img2img": {"strength": 0.5}, "reference_only": {"weight": 1}}

pytestmark = pytest.mark.usefixtures("workplace")


@pytest.fixture
def inputs(toy: Toy) -> Inputs:
    return Inputs(toy.encoded, toy.shards, toy.backbone, toy.adapter.parent)


def test_what_sees_an_image_has_both_protocols_and_floors_their_own(inputs: Inputs) -> None:
    sample, rows = toy_backbone.SAMPLE, {"toy": VARIANT}
    folders = sample_methods(sample, inputs, rows, FREE, "train", Path("out"))
    assert [folder.name for folder in folders] == ["toy", *FREE, "no_prompt", "text_only"]
    tars = [[path.stem for path in find_tars(folder)] for folder in folders]
    both = ["image", "image_text"]
    assert tars == [both, both, both, ["image"], ["image_text"]]
    names = [read_names(path) for folder in folders for path in find_tars(folder)]
    assert all(each == names[0] for each in names)
    known = {row["key"] for row in EncodedSplit(inputs.encoded, "train").samples}
    assert {key for key, _ in names[0]} <= known


def test_a_split_with_fewer_items_is_sampled_whole(inputs: Inputs) -> None:
    many = toy_backbone.SAMPLE.model_copy(update={"items": 1000, "steps": 1, "batch_size": 8})
    [folder, *_] = sample_methods(many, inputs, {}, {}, "validation", Path("out"))
    data = EncodedSplit(inputs.encoded, "validation")
    assert len(read_names(find_tars(folder)[0])) == len(data)


def test_an_unknown_split_and_a_missing_adapter_are_one_line(inputs: Inputs) -> None:
    sample, out = toy_backbone.SAMPLE, Path("out")
    with pytest.raises(UserError, match=r"no split 'novel' \(it has train, validation\)"):
        sample_methods(sample, inputs, {"toy": VARIANT}, {}, "novel", out)
    with pytest.raises(UserError, match="other"):
        sample_methods(sample, inputs, {"other": VARIANT}, {}, "train", out)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("inversion", {}, "unknown training_free 'inversion' .*img2img, reference_only"),
        ("img2img", {}, "training_free.img2img.strength is missing"),
        ("img2img", {"strength": 1.5}, "training_free.img2img.strength = 1.5"),
        ("img2img", {"strength": 0.4}, "strength = 0.4 of sample.steps = 2 is less than a step"),
        ("reference_only", {"weight": -1}, "training_free.reference_only.weight = -1"),
    ],
)
def test_a_bad_training_free_method_is_one_line(
    inputs: Inputs, name: str, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        sample_methods(toy_backbone.SAMPLE, inputs, {}, {name: fields}, "train", Path("out"))
    assert "\n" not in str(caught.value)
    assert not Path("out").exists()


@pytest.mark.parametrize(("guidance", "prompts"), [(1.0, 1), (3.0, 2)])
@pytest.mark.parametrize(
    ("name", "fields"), [("img2img", {"strength": 0.7}), ("reference_only", {"weight": 1.0})]
)
def test_a_plan_counts_the_passes_that_are_made(
    toy: Toy, name: str, fields: dict[str, Any], guidance: float, prompts: int
) -> None:
    values = {
        **toy_backbone.SAMPLE.model_dump(),
        "items": 3,
        "steps": 5,
        "guidance_scale": guidance,
    }
    sampler = Sampler(SampleParams(**values), toy.encoded, toy.backbone, None)
    method = training_free_method(name, fields)
    sampler.generate = method.build(method.params, sampler)
    passed: list[int] = []
    sampler.unet.register_forward_hook(lambda _, args, __: passed.append(len(args[0])))
    image_ids = sampler.image_ids()
    sampler.make(image_ids, with_text=False)
    assert sum(passed) == len(image_ids) * method.predictions(method.params, 5, prompts)
