"""What nothing is trained on: whole families of makers, novel concepts, twins."""

from typing import Any

import pytest
import torch

from adapterbench.pretraining.hold_out import Described, HoldOutParams, choose, hold_out, sheet

FAMILIES = ("fluent", "google", "twitter")
NAMES = [
    f"{colour} {thing}" for colour in ("red", "blue", "green") for thing in ("cat", "dog", "owl")
]


def params(**changes: Any) -> HoldOutParams:
    values = {
        "families": FAMILIES,
        "least_families": 4,
        "drawn_alike": ["flag"],
        "novel_images": 5,
        "novel": 2,
        "tuning": 1,
        "validation": 2,
        "validation_pairs": 1,
        "twin_cosine": 0.9,
        "seed": 0,
    }
    return HoldOutParams.model_validate(values | changes)


def image(name: str, family: str, category: str = "animal", tone: str = "") -> Described:
    return Described(
        key=f"{family}-{name}{tone}".replace(" ", "-"),
        concept=name,
        family=family,
        category=category,
        name=name,
        captions=(f"{name}, {category}",),
    )


ANIMALS = [image(name, family) for name in NAMES for family in (*FAMILIES, "fxemoji")]
UNFIT = [
    *(image("red flag", family, "flag") for family in (*FAMILIES, "fxemoji")),
    *(image("blue hat", family) for family in FAMILIES),  # by too few makers
    *(image("green hat", family) for family in ("google", "fluent", "fxemoji", "emojione")),
]


def test_concepts_of_enough_makers_are_held_out_by_family() -> None:
    splits = choose([*UNFIT, *ANIMALS], params())
    assert {name: len(rows) for name, rows in splits.items()} == {
        "validation": 3,
        "tuning": 1,
        "novel": 2,
    }
    concepts = [concept for rows in splits.values() for concept in rows]
    assert len(concepts) == len(set(concepts))
    assert set(concepts) <= set(NAMES)
    assert sorted(len(makers) for makers in splits["validation"].values()) == [1, 1, 2]
    assert all({*makers} < {*FAMILIES} for makers in splits["validation"].values())
    assert all({*makers} == {*FAMILIES, "fxemoji"} for makers in splits["novel"].values())


def test_the_choice_depends_on_the_seed_and_not_on_the_order() -> None:
    assert choose(ANIMALS, params()) == choose(ANIMALS[::-1], params())
    assert choose(ANIMALS, params()) != choose(ANIMALS, params(seed=1))


def test_words_of_a_novel_concept_occur_in_other_captions() -> None:
    strange = [image("purple yak", family) for family in (*FAMILIES, "fxemoji")]
    for seed in range(8):
        novel = choose([*ANIMALS, *strange], params(seed=seed, novel=3))["novel"]
        left = {word for name in NAMES if name not in novel for word in name.split()}
        assert {word for name in novel for word in name.split()} <= left


def test_a_novel_concept_has_few_images() -> None:
    tones = [image(name, "google", tone=f"-{n}") for name in NAMES[:7] for n in range(3)]
    novel = choose([*ANIMALS, *tones], params(validation=1))["novel"]
    assert set(novel) == set(NAMES[7:])


def test_held_out_images_near_a_training_image_are_twins() -> None:
    features = torch.nn.functional.one_hot(torch.arange(len(ANIMALS))).float()
    splits = choose(ANIMALS, params())
    held = [
        n
        for n, row in enumerate(ANIMALS)
        if any(row.family in rows.get(row.concept, ()) for rows in splits.values())
    ]
    train = next(n for n in range(len(ANIMALS)) if n not in held)
    features[held[0]] = features[train]  # the same
    mixed = 0.89 * features[train] + (1 - 0.89**2) ** 0.5 * features[held[1]]
    features[held[1]] = mixed  # alike, but below the threshold
    features[held[2]] = features[held[3]]  # two held-out images may be twins of each other
    listed, pairs = hold_out(ANIMALS, features, params())
    assert listed.splits == splits
    assert listed.twins == {ANIMALS[held[0]].key: ANIMALS[train].key}
    assert [cosine for cosine, *_ in pairs[:2]] == pytest.approx([1, 0.89])
    assert len(pairs) == len(held)


def test_the_figure_has_a_line_on_each_side_of_the_threshold() -> None:
    pixels = torch.zeros(len(ANIMALS), 3, 4, 4, dtype=torch.uint8)
    keys = [row.key for row in ANIMALS]
    pairs = [(0.95, keys[0], keys[1]), (0.8, keys[2], keys[3]), (0.7, keys[4], keys[5])]
    few = sheet(pairs, ANIMALS, pixels, 0.9)
    assert few.size == (3 * 4, 2 * 4)
