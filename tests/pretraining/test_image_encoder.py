"""The image encoder: its text tower is the pipeline's, its image tower learns to agree with it."""

from pathlib import Path

import torch
from toy_backbone import CLIP_PARAMS, Toy, toy_clip, toy_tokenizer

from adapterbench.frozen.load import load_clip, load_part
from adapterbench.pretraining import clip, image_encoder
from adapterbench.pretraining.images import load_images
from adapterbench.training.distributed import DistributedContext

PARAMS = image_encoder.TuneParams(
    **CLIP_PARAMS.model_dump(include=set(clip.ContrastParams.model_fields))
    | {"steps": 100, "batch_size": 18, "learning_rate": 3e-3, "log_every": 10},
    mixed_precision="no",
)


def test_the_image_tower_learns_the_locked_text_encoder(toy: Toy, tmp_path: Path) -> None:
    images, vocabulary = load_images(toy.shards, "train"), toy_tokenizer()
    # not the tower that this CLIP has been trained with
    text = clip.text_model(toy_clip(vocabulary, seed=7), vocabulary)
    before = {name: weight.clone() for name, weight in text.state_dict().items()}
    model = load_clip(toy.image_encoder, None).model
    arguments = images, model, text, vocabulary, tmp_path / "state", lambda *_: None
    fitted = image_encoder.tune(PARAMS, *arguments, DistributedContext())

    assert fitted.losses[-1][1] < 0.5 * fitted.losses[0][1]
    assert clip.recall(*clip.embed(model, images, vocabulary), 1) > 0.5
    # the tower in the saved CLIP is the pipeline's, as it was
    for name, weight in clip.text_weights(model).items():
        assert weight.equal(before[name]), name
    ids = clip.tokenize(["a red circle", ""], vocabulary)
    with torch.no_grad():
        expected = text(ids).pooler_output @ model.text_projection
        torch.testing.assert_close(model.encode_text(ids), expected)


def test_states_are_those_of_each_phrasing_of_each_image(toy: Toy) -> None:
    images, vocabulary = load_images(toy.shards, "train"), toy_tokenizer()
    text = load_part(toy.backbone, "text_encoder")
    states = image_encoder.pooled_states(images, text, vocabulary)
    assert len(states) == len(images)
    for of_image, texts in zip(states, images.captions, strict=True):
        with torch.no_grad():
            expected = text(clip.tokenize(list(texts), vocabulary)).pooler_output
        torch.testing.assert_close(of_image, expected)
