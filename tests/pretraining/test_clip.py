"""The small CLIP: its text tower in the pipeline, its file format, its training."""

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.model import CLIP
from toy_backbone import CLIP_PARAMS, SIDE, Toy, toy_clip, toy_samples, toy_tokenizer
from transformers import CLIPTokenizer

from adapterbench.frozen.load import load_clip
from adapterbench.pretraining import clip
from adapterbench.pretraining.images import CaptionedImages, load_images

TEXTS = ["a red circle", "", "image of a ring, blue", "unseen ✨ " * 20]


@pytest.fixture(scope="module")
def vocabulary() -> CLIPTokenizer:
    return toy_tokenizer()


@pytest.fixture(scope="module")
def model(vocabulary: CLIPTokenizer) -> CLIP:
    return toy_clip(vocabulary, seed=5)


@pytest.fixture(scope="module")
def images(toy: Toy) -> CaptionedImages:
    return load_images(toy.shards, "train")


@torch.no_grad()
def test_the_text_tower_is_open_clips(model: CLIP, vocabulary: CLIPTokenizer) -> None:
    ids = clip.tokenize(TEXTS, vocabulary)
    tower = clip.text_model(model, vocabulary)
    out = tower(ids)
    torch.testing.assert_close(out.pooler_output @ model.text_projection, model.encode_text(ids))

    # and every token's state, which conditions the UNet, is open_clip's before pooling
    x = model.token_embedding(ids) + model.positional_embedding
    states = model.ln_final(model.transformer(x, attn_mask=model.attn_mask))
    torch.testing.assert_close(out.last_hidden_state, states)


@torch.no_grad()
def test_a_saved_clip_loads_through_open_clip(
    model: CLIP, vocabulary: CLIPTokenizer, tmp_path: Path
) -> None:
    folder = tmp_path / "clip"
    clip.save(model, CLIP_PARAMS, vocabulary, folder)
    name = f"local-dir:{folder}"
    loaded = open_clip.create_model(name, require_pretrained=True).eval()
    assert isinstance(loaded, CLIP)
    ids = open_clip.get_tokenizer(name)(TEXTS)
    assert ids.equal(clip.tokenize(TEXTS, vocabulary))
    half: dict[str, Any] = {"atol": 5e-3, "rtol": 5e-3}
    torch.testing.assert_close(loaded.encode_text(ids), model.encode_text(ids), **half)
    pixels = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loaded.encode_image(pixels), model.encode_image(pixels), **half)


@torch.no_grad()
def test_training_sees_images_as_evaluation_does(toy: Toy, images: CaptionedImages) -> None:
    evaluator = load_clip(toy.evaluator, None)
    samples = [s for s in toy_samples() if s.key in images.keys]
    seen = torch.stack([evaluator.preprocess(sample.image) for sample in samples])
    torch.testing.assert_close(clip.normalise(images.pixels), seen)


def test_embeddings_are_unit_vectors_of_the_first_captions(
    toy: Toy, model: CLIP, vocabulary: CLIPTokenizer, images: CaptionedImages
) -> None:
    image_embeds, texts = clip.embed(model, images, vocabulary)
    assert image_embeds.shape == texts.shape == (18, CLIP_PARAMS.embed_dim)
    for rows in (image_embeds, texts):
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(18))
    ids = clip.tokenize([images.captions[4][0]], vocabulary)
    with torch.no_grad():
        torch.testing.assert_close(texts[4], model.encode_text(ids, normalize=True)[0])
    assert toy


def test_recall_by_hand() -> None:
    texts = torch.eye(4)
    images = torch.tensor(
        [
            [0.9, 0.1, 0.0, 0.0],  # its own first
            [0.5, 0.4, 0.1, 0.0],  # second
            [0.5, 0.4, 0.2, 0.1],  # third
            [0.4, 0.3, 0.2, 0.1],  # fourth
        ]
    )
    assert [clip.recall(images, texts, k) for k in (1, 2, 3, 4)] == [0.25, 0.5, 0.75, 1.0]


def test_nothing_is_augmented_where_every_limit_is_zero() -> None:
    none = {"max_shift": 0.0, "max_zoom": 0.0, "color_jitter": 0.0}
    params = CLIP_PARAMS.model_copy(update=none)
    batch = torch.randint(0, 256, (3, 3, SIDE, SIDE), dtype=torch.uint8)
    made = clip.augmented(batch, params, torch.Generator().manual_seed(0))
    torch.testing.assert_close(made, batch.float(), atol=0.01, rtol=0)


def test_an_image_is_moved_by_at_most_its_share_and_white_comes_in() -> None:
    params = CLIP_PARAMS.model_copy(
        update={"max_shift": 0.25, "max_zoom": 0.0, "color_jitter": 0.0}
    )
    black = torch.zeros(200, 3, SIDE, SIDE, dtype=torch.uint8)
    made = clip.augmented(black, params, torch.Generator().manual_seed(0))
    covered = (made < 128).float().mean(dim=(1, 2, 3))
    assert 0.75**2 - 0.02 <= covered.min() < 0.65
    assert made.max() == 255


def test_partners_show_the_same_emoji_by_another_maker() -> None:
    keys = ["google-1f984", "twitter-1f984", "google-1f40e", "fluent-1f984"]
    assert clip.same_emoji(keys) == [[1, 3], [0, 3], [2], [0, 1]]


def test_training_brings_images_and_captions_together(
    images: CaptionedImages, vocabulary: CLIPTokenizer, tmp_path: Path
) -> None:
    params = CLIP_PARAMS.model_copy(
        update={"steps": 40, "batch_size": 18, "learning_rate": 3e-3, "log_every": 10}
    )
    model, fitted = clip.train(
        params, images, vocabulary, tmp_path / "state", lambda *_: None, "clip"
    )
    assert fitted.losses[-1][1] < 0.6 * fitted.losses[0][1]
    assert clip.recall(*clip.embed(model, images, vocabulary), 1) > 0.5
