"""Prompts with a right answer: which they are, what is drawn of them, what scores say of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import toy_backbone
from PIL import Image
from toy_backbone import Toy, toy_samples

from adapterbench.core.errors import UserError
from adapterbench.core.files import read_json
from adapterbench.data.emoji_sets import SETS
from adapterbench.data.sources.emoji import captions
from adapterbench.formats.pairs import Pair, list_path, write_pairs
from adapterbench.formats.shards import Sample, read_split
from adapterbench.illustrating.drawing import draw_share, embedded, pack
from adapterbench.illustrating.pairs import choose, find_pairs, pair_sheets, score_pairs
from adapterbench.runs.processes import process_state
from adapterbench.sampling.sampler import ImageId, Sampler
from adapterbench.scoring.evaluator import Evaluator, load_evaluator

from .test_illustrate import read

COUNT = 2
ROWS = ("image_and_text", "image_only", "shuffled_image")


def sample(style: str, concept: str, name: str = "", tones: str = "") -> Sample:
    """A sample as the source `emoji` describes it."""
    facts = {"style": style, "concept": concept, "name": name or concept, "tones": tones}
    said = {
        "name": facts["name"],
        "tones": tones,
        "category": "a-b",
        "keywords": [],
        "short": ["s"],
    }
    return Sample(
        key=f"{style}-{facts['name']}{tones}",
        image=Image.new("RGB", (8, 8)),
        captions=captions(said, SETS[style].style),
        meta={**facts, "family": SETS[style].family},
    )


def no_twins(pairs: list[Pair]) -> list[bool]:
    return [False] * len(pairs)


def test_restyle_is_one_thing_by_two_families_and_the_goals_style_without_a_name() -> None:
    things = [
        *(sample(style, "frog") for style in ("google", "twitter", "fluent")),
        *(sample(style, "cat") for style in ("fluent", "fluent_color", "twitter")),
        *(sample(style, "dog") for style in ("fluent", "fluent_color")),  # one family
        sample("google", "person", "man", " dark"),  # two things of one concept
        sample("twitter", "person", "woman", " dark"),
        sample("twitter", "person", "man", " light"),
        sample("twitter", "owl"),
    ]
    keys = {thing.key: thing.meta for thing in things}
    for seed in range(5):
        pairs = choose(things, COUNT, seed, no_twins)["restyle"]
        assert {keys[pair.prompt]["concept"] for pair in pairs} == {"frog", "cat"}
        for pair in pairs:
            a, b = keys[pair.prompt], keys[pair.goal]
            assert (a["name"], a["tones"]) == (b["name"], b["tones"])
            assert a["family"] != b["family"]
            assert pair.text == f"{SETS[b['style']].style} style"


def test_concept_is_another_thing_by_the_same_maker_by_name_without_a_style() -> None:
    things = [sample(style, f"c{n}") for style in ("google", "twitter") for n in range(4)]
    things.append(sample("google", "hand", "waving hand", "dark skin tone"))
    keys = {thing.key: thing.meta for thing in things}
    several = [pair for seed in range(9) for pair in choose(things, 4, seed, no_twins)["concept"]]
    for pair in several:
        a, b = keys[pair.prompt], keys[pair.goal]
        assert a["style"] == b["style"]
        assert a["concept"] != b["concept"]
        assert b["name"] in pair.text
        assert not any(image_set.style in pair.text for image_set in SETS.values())
    assert "waving hand with dark skin tone" in {pair.text for pair in several}


def test_no_goal_comes_twice() -> None:
    things = [sample(style, f"c{n}") for style in ("google", "twitter") for n in range(6)]
    for pairs in choose(things, 6, 0, no_twins).values():
        assert len({pair.goal for pair in pairs}) == len({p.prompt for p in pairs}) == 6


def test_the_order_of_the_samples_changes_nothing() -> None:
    things = [sample(style, f"c{n}") for style in ("google", "twitter") for n in range(6)]
    assert choose(things, 3, 0, no_twins) == choose(things[::-1], 3, 0, no_twins)
    assert choose(things, 3, 0, no_twins) != choose(things, 3, 1, no_twins)


def test_samples_without_makers_have_no_pairs() -> None:
    plain = [replace(s, meta={"concept": s.meta["concept"]}) for s in toy_samples()]
    assert choose(plain, 32, 0, no_twins) == {}
    assert choose([sample("google", "a"), sample("google", "b")], 32, 0, no_twins) == {}
    assert choose(list(toy_samples()), 0, 0, no_twins) == {}


def test_more_pairs_than_there_are_is_one_line() -> None:
    with pytest.raises(
        UserError, match=r"illustrate\.pairs = 9, but .* gives 8 for restyle .*: lower"
    ):
        choose(list(toy_samples()), 9, 0, no_twins)


def test_pairs_of_images_that_look_alike_are_passed_over() -> None:
    things = [sample(style, f"c{n}") for style in ("google", "twitter") for n in range(6)]
    seen = []

    def odd_ones(pairs: list[Pair]) -> list[bool]:
        seen.append(len(pairs))
        return [n % 2 == 1 for n in range(len(pairs))]

    every = choose(things, 6, 0, no_twins)["restyle"]
    assert choose(things, 3, 0, odd_ones)["restyle"] == [every[n] for n in (0, 2, 3)]
    assert seen[:2] == [3, 3]  # as many as are needed, not all that there are
    with pytest.raises(UserError, match="gives 4 for restyle whose two images differ: lower it"):
        choose(things, 5, 0, odd_ones)


@pytest.fixture(scope="module")
def evaluator(toy: Toy) -> Evaluator:
    neutral = toy.score_params().evaluators.neutral
    return load_evaluator(neutral, toy.folders, "score.evaluators.neutral")


def test_twins_are_told_by_the_evaluator(toy: Toy) -> None:
    def pixels(images: list[Image.Image]) -> torch.Tensor:
        return torch.tensor(np.stack([np.asarray(image) for image in images])).flatten(1) - 128.0

    evaluator = Evaluator(pixels, None, batch_size=3)
    sampler = Sampler(toy_backbone.SAMPLE, toy.encoded, toy.backbone, None)
    images = {s.key: pixels([s.image])[0] for s in read_split(toy.shards, "validation")}
    every = find_pairs(sampler, toy.shards, COUNT, evaluator, None)["restyle"]
    cosines = [
        torch.cosine_similarity(images[p.prompt], images[p.goal], dim=0).item() for p in every
    ]
    limit = sum(cosines) / 2
    expected = [pair for pair, value in zip(every, cosines, strict=True) if value < limit]
    assert find_pairs(sampler, toy.shards, 1, evaluator, limit)["restyle"] == expected


@pytest.fixture(scope="module")
def drawn(
    toy: Toy, evaluator: Evaluator, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pairs")
    for name, adapter in {"toy": toy.adapter, "text_only": None}.items():
        sampler = Sampler(toy_backbone.SAMPLE, toy.encoded, toy.backbone, adapter)
        pairs = find_pairs(sampler, toy.shards, COUNT, evaluator, None)
        sheets = list(pair_sheets(sampler, pairs, folder / name))
        draw_share(sampler, sheets, process_state())
        for sheet in sheets:
            pack(sheet)
        for protocol, rows in pairs.items():
            write_pairs(list_path(folder / name, protocol), rows)
        assert sum(len(s.names) for s in sheets) == 2 * COUNT * (len(ROWS) if adapter else 1)
    return {name: folder / name for name in ("toy", "text_only")}


@pytest.mark.parametrize("protocol", ["restyle", "concept"])
def test_each_row_is_given_what_its_name_says(
    protocol: str, toy: Toy, drawn: dict[str, Path]
) -> None:
    pairs = read_json(drawn["toy"] / f"{protocol}.json")
    assert pairs == read_json(drawn["text_only"] / f"{protocol}.json")
    sampler = Sampler(toy_backbone.SAMPLE, toy.encoded, toy.backbone, toy.adapter)
    places = {row["key"]: number for number, row in enumerate(sampler.data.samples)}
    texts = embedded([pair["text"] for pair in pairs], sampler)
    expected: dict[str, Any] = {row: [] for row in ROWS}
    for at, pair in enumerate(pairs):
        own = ImageId(places[pair["prompt"]], pair["prompt"], 0)
        other = replace(own, number=places[pairs[at - 1]["prompt"]])
        text = texts[at : at + 1]
        expected["image_and_text"] += sampler.draw([own], text)
        expected["image_only"] += sampler.draw([own], None)
        expected["shuffled_image"] += sampler.draw([other], text)
    for row, images in expected.items():
        tar = read(drawn["toy"] / protocol / f"{row}.tar")
        assert list(tar) == [f"{pair['prompt']}.0.png" for pair in pairs]
        for image, pixels in zip(images, tar.values(), strict=True):
            np.testing.assert_allclose(np.asarray(image, float), pixels, atol=1)
    texts_alone = read(drawn["text_only"] / protocol / "text_only.tar")
    together = read(drawn["toy"] / protocol / "image_and_text.tar")
    assert texts_alone.keys() == together.keys()
    assert not any(np.array_equal(texts_alone[name], together[name]) for name in together)


def test_scores_are_against_goal_and_copy(
    toy: Toy, drawn: dict[str, Path], evaluator: Evaluator, tmp_path: Path
) -> None:
    score_pairs(evaluator, toy.shards, drawn["toy"], tmp_path / "pairs.parquet")
    frame = pd.read_parquet(tmp_path / "pairs.parquet")
    references = {s.key: s.image for s in toy_samples()}
    for protocol, part in frame.groupby("protocol"):
        pairs = read_json(drawn["toy"] / f"{protocol}.json")
        goals, copies = (
            evaluator.images([references[p[kind]] for p in pairs]).double()
            for kind in ("goal", "prompt")
        )
        rows = part.set_index("prompts")
        assert set(rows.index) == {*ROWS, "real_goal", "real_copy"}
        for row in ROWS:
            tar = read(drawn["toy"] / str(protocol) / f"{row}.tar")
            images = evaluator.images([Image.fromarray(pixels) for pixels in tar.values()]).double()
            near = images @ goals.T
            found = rows.loc[row]
            assert found["key"].tolist() == [pair["prompt"] for pair in pairs]
            assert found["goal"].tolist() == pytest.approx(near.diagonal().tolist(), abs=1e-6)
            expected = (images * copies).sum(1).tolist()
            assert found["copy"].tolist() == pytest.approx(expected, abs=1e-6)
            assert found["r_at_1"].tolist() == (near.argmax(1) == torch.arange(COUNT)).tolist()
        assert rows.loc["real_goal", ["goal", "r_at_1"]].to_numpy() == pytest.approx(1)
        assert rows.loc[["real_copy"], "copy"].to_numpy() == pytest.approx(1)
        assert rows.loc[["real_copy"], "goal"].tolist() == pytest.approx(
            rows.loc[["real_goal"], "copy"].tolist()
        )
