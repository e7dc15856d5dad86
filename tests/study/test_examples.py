"""Images of a finalist: what is kept, and that the worst are the worst."""

from pathlib import Path

import pandas as pd
import pytest
from toy_backbone import SAMPLE, Toy

from adapterbench.core.files import sha256
from adapterbench.formats.frames import write_frame
from adapterbench.formats.generated import read_names
from adapterbench.sampling.sampler import ImageId
from adapterbench.study.examples import ExamplesParams, Finalist, make_examples, worst
from adapterbench.study.runs.files import CHOSEN, REFERENCES, SCORES, WORST, Data
from adapterbench.study.runs.run import Settings, run_once


def test_the_worst_items_have_the_lowest_means(workplace: Path) -> None:
    keys = ["a", "a", "b", "b", "c", "c"]
    table = pd.DataFrame({"key": keys, "neutral": [0.5, 0.9, 0.2, 0.9, 0.6, 0.6]})
    write_frame(table, workplace / SCORES)
    ids = [ImageId(number, key, 0) for number, key in enumerate("abc")]
    assert [image_id.key for image_id in worst(ids, workplace)] == ["b", "c", "a"]


@pytest.mark.parametrize("alone", [False, True])
def test_images_of_a_finalist(
    toy: Toy, data: Data, settings: Settings, workplace: Path, alone: bool
) -> None:
    run, out = workplace / "run", workplace / "examples"
    run_once(settings, data, run, workplace / "adapter")
    adapter = workplace / "adapter"
    finalist = None if alone else Finalist(adapter, run)
    params = ExamplesParams(pairs=1, twin_cosine=None, shown=2)
    make_examples(params, SAMPLE, toy.score_params(), data, finalist, out)
    names = {path.name for path in out.iterdir()}
    if alone:
        assert not {CHOSEN, WORST, REFERENCES} & names
        return
    keys = {tar: [key for key, _ in read_names(out / tar)] for tar in (CHOSEN, WORST)}
    assert {tar: len(listed) for tar, listed in keys.items()} == {CHOSEN: 2, WORST: 2}
    real = {key for key, _ in read_names(out / REFERENCES)}
    assert {*keys[CHOSEN], *keys[WORST]} <= real
    digest = sha256(out / CHOSEN)
    make_examples(params, SAMPLE, toy.score_params(), data, finalist, out)
    assert sha256(out / CHOSEN) == digest
