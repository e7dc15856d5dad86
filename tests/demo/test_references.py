"""The images that the page offers."""

from toy_backbone import Toy

from adapterbench.core.config import PromptParams
from adapterbench.demo.references import examples
from adapterbench.formats.shards import read_split


def test_an_example_has_an_image_of_its_word_or_is_left_out(toy: Toy) -> None:
    captions = [sample.captions[0] for sample in read_split(toy.shards, "validation")]
    prompts = [
        PromptParams(image=captions[-1], text="the last"),
        PromptParams(image="an image of nothing", text="none"),
        PromptParams(image=captions[0], text="the first"),
    ]
    shown = [(x.reference.caption, x.text) for x in examples(toy.shards, prompts)]
    assert shown == [(captions[-1], "the last"), (captions[0], "the first")]
