"""The small VAE and UNet: their measures, what the UNet learns from, a few steps of training."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from toy_backbone import FIT, SIDE, UNET_PARAMS, VAE_PARAMS, Toy, toy_samples

from adapterbench.core.files import read_json
from adapterbench.frozen.load import load_part
from adapterbench.pretraining import unet, vae
from adapterbench.pretraining.images import CaptionedImages, load_images, to_signed
from adapterbench.pretraining.run import resume_file, write_metrics
from adapterbench.scoring.evaluators.timm import load_network
from adapterbench.training.distributed import DistributedContext
from adapterbench.training.loop import FitResult


@pytest.fixture(scope="module")
def images(toy: Toy) -> CaptionedImages:
    return load_images(toy.shards, "train")


def test_a_split_is_held_as_it_was_drawn(images: CaptionedImages) -> None:
    samples = {s.key: s for s in toy_samples()}
    assert len(images) == 18
    assert images.pixels.dtype == torch.uint8
    for number, key in enumerate(images.keys):
        drawn = np.asarray(samples[key].image).transpose(2, 0, 1)
        assert np.array_equal(images.pixels[number].numpy(), drawn)
        assert images.captions[number] == samples[key].captions
        assert images.concepts[number] == samples[key].meta["concept"]


def test_several_splits_are_joined(toy: Toy) -> None:
    assert len(load_images(toy.shards, "train", "validation")) == 24


def test_pixels_span_the_range_of_the_vae() -> None:
    ends = to_signed(torch.tensor([0, 255], dtype=torch.uint8))
    torch.testing.assert_close(ends, torch.tensor([-1.0, 1.0]))


def test_psnr_by_hand() -> None:
    a = torch.full((2, 3, 4, 4), 100, dtype=torch.uint8)
    b = a.clone()
    b[1, 0, 0, 0] = 148  # one of 48 values is off by 48: the mean square error is 48
    b[0] = 90  # all are off by 10, downwards
    expected = [20 * np.log10(255 / 10), 10 * np.log10(255**2 / 48)]
    assert vae.psnr(a, b).tolist() == pytest.approx(expected)
    assert vae.psnr(a, a).min() > 100


def test_reconstruction_is_the_pipelines_round_trip(
    pipeline: StableDiffusionPipeline, images: CaptionedImages
) -> None:
    ours = vae.reconstruct(pipeline.vae, images.pixels[:3])
    images = pipeline.image_processor.preprocess([s.image for s in toy_samples()][:3])
    with torch.no_grad():
        latents = pipeline.vae.encode(images).latent_dist.mode()
        decoded = pipeline.vae.decode(latents).sample
    expected = pipeline.image_processor.postprocess(decoded, "np") * 255
    assert np.abs(ours.permute(0, 2, 3, 1).numpy() - expected).max() <= 1


def test_the_vae_learns_and_scales_its_latents(
    toy: Toy, images: CaptionedImages, tmp_path: Path
) -> None:
    params = VAE_PARAMS.model_copy(
        update={"steps": 30, "batch_size": 6, "learning_rate": 5e-3, "log_every": 10}
    )
    network = load_network(toy.neutral, SIDE)
    model, fitted = vae.train(params, images, network, tmp_path / "state", lambda *_: None)
    assert fitted.losses[-1][1] < 0.7 * fitted.losses[0][1]
    with torch.no_grad():
        latents = model.encode(to_signed(images.pixels)).latent_dist.mode()
    assert (latents * model.config["scaling_factor"]).std().item() == pytest.approx(1, abs=1e-3)

    vae.save(model, tmp_path / "vae")
    assert {w.dtype for w in model.parameters()} == {torch.float32}
    loaded = type(model).from_pretrained(tmp_path / "vae")
    assert loaded.config["scaling_factor"] == pytest.approx(model.config["scaling_factor"])
    difference = vae.reconstruct(loaded, images.pixels).int() - vae.reconstruct(
        model, images.pixels
    )
    assert difference.abs().max() <= 2  # the rounding of fp16


def test_balanced_latents_decode_to_the_same_images(images: CaptionedImages) -> None:
    torch.manual_seed(0)
    model = vae.build(VAE_PARAMS, SIDE).eval()
    with torch.no_grad():  # directions of very different scale, far from zero
        quant = model.quant_conv
        assert quant is not None
        assert quant.bias is not None
        quant.weight[:4] *= torch.tensor([9.0, 3.0, 1.0, 0.2])[:, None, None, None]
        quant.bias[:4] = torch.tensor([1.0, -2.0, 3.0, 0.5])
    before = vae.reconstruct(model, images.pixels)
    spread = vae.latents_of(model, images).movedim(1, 0).flatten(1)
    scales = torch.linalg.eigvalsh(torch.cov(spread.double())).sqrt()
    vae.balance(model, vae.latents_of(model, images), 0.75)
    latents = vae.latents_of(model, images).movedim(1, 0).flatten(1).double()
    assert (vae.reconstruct(model, images.pixels).int() - before.int()).abs().max() <= 1
    torch.testing.assert_close(latents.mean(dim=1), torch.zeros(4).double(), atol=1e-3, rtol=0)
    covariance = torch.cov(latents)
    torch.testing.assert_close(covariance.diagonal().sqrt(), scales**0.25, atol=1e-2, rtol=1e-2)
    assert (covariance - torch.diag(covariance.diagonal())).abs().max() < 1e-2


def test_the_perceptual_loss_is_zero_for_the_same_image_and_grows_with_blur(toy: Toy) -> None:
    network = load_network(toy.neutral, SIDE)
    sharp = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    blurs = [torch.nn.functional.avg_pool2d(sharp, n, 1, n // 2) for n in (3, 7)]
    distances = [float(vae.perceptual_loss(network, blur, sharp)) for blur in (sharp, *blurs)]
    assert distances[0] == 0
    assert 0 < distances[1] < distances[2]


@pytest.fixture(scope="module")
def three(images: CaptionedImages) -> CaptionedImages:
    """The images with three phrasings."""
    return images.at([n for n, texts in enumerate(images.captions) if len(texts) == 3])


def pipeline_latents(pipeline: StableDiffusionPipeline, images: CaptionedImages) -> torch.Tensor:
    shown = [sample.image for sample in toy_samples() if sample.key in images.keys]
    with torch.no_grad():
        encoded = pipeline.vae.encode(pipeline.image_processor.preprocess(shown))
    return encoded.latent_dist.mode() * 0.5


def test_what_is_encoded_is_what_the_pipeline_would_compute(
    toy: Toy, pipeline: StableDiffusionPipeline, three: CaptionedImages
) -> None:
    parts = (load_part(toy.backbone, part) for part in ("vae", "text_encoder", "tokenizer"))
    data = unet.encode(three, *parts)
    torch.testing.assert_close(
        data.latents, pipeline_latents(pipeline, three), atol=1e-4, rtol=1e-4
    )
    for number, texts in enumerate(three.captions):
        expected, _ = pipeline.encode_prompt(list(texts), "cpu", 1, False)
        torch.testing.assert_close(data.texts[number], expected)
    torch.testing.assert_close(data.empty, pipeline.encode_prompt("", "cpu", 1, False)[0][0])


def test_the_unet_and_its_text_encoder_learn_from_versions_of_images_and_captions(
    toy: Toy, pipeline: StableDiffusionPipeline, three: CaptionedImages, tmp_path: Path
) -> None:
    params = UNET_PARAMS.model_copy(
        update={"steps": 30, "batch_size": 6, "learning_rate": 2e-3, "log_every": 10}
    )
    autoencoder, text, tokenizer, _ = unet.load_parts(
        params, toy.backbone / "vae", toy.backbone / "image_encoder"
    )
    data = unet.versions(params, three, autoencoder, tokenizer)
    torch.testing.assert_close(
        data.latents[0], pipeline_latents(pipeline, three), atol=1e-4, rtol=1e-4
    )
    assert len(data.latents) == 2
    assert not torch.allclose(data.latents[1], data.latents[0], atol=1e-2)
    for ids, texts in zip(data.ids, three.captions, strict=True):
        read = tokenizer.batch_decode(ids, skip_special_tokens=True)
        assert len(read) == 6
        assert read[:3] == tokenizer.batch_decode(
            tokenizer(list(texts), padding="max_length", truncation=True).input_ids,
            skip_special_tokens=True,
        )
    sizes = [three.concepts.count(concept) for concept in three.concepts]
    torch.testing.assert_close(data.weights, torch.tensor(sizes).float().rsqrt())

    before = {name: weight.clone() for name, weight in text.state_dict().items()}
    context = DistributedContext()
    model, fitted = unet.train(params, data, text, tmp_path / "state", lambda *_: None, context)
    assert fitted.losses[-1][1] < fitted.losses[0][1]
    moved = {name for name, weight in text.state_dict().items() if not weight.equal(before[name])}
    assert moved == {name for name, _ in text.named_parameters()}
    assert not text.training
    assert not model.training

    trained = {name: weight.clone() for name, weight in model.state_dict().items()}
    params = params.model_copy(update={"first_step": 28, "learning_rate": 1e-7})
    state = tmp_path / "on"
    model, fitted = unet.train(params, data, text, state, lambda *_: None, context, model)
    assert [step for step, _ in fitted.losses] == [30]
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(weight, trained[name], atol=1e-6, rtol=0)
    assert not all(weight.equal(trained[name]) for name, weight in model.state_dict().items())


def test_a_checkpoint_belongs_to_its_parameters_and_shards(toy: Toy, workplace: Path) -> None:
    first = resume_file("vae", VAE_PARAMS, toy.shards)
    assert first == resume_file("vae", VAE_PARAMS, toy.shards)
    assert first.suffix == ".safetensors"
    assert first != resume_file("vae", VAE_PARAMS.model_copy(update={"seed": 1}), toy.shards)
    assert list(workplace.iterdir()) == []


def test_metrics_are_written_and_the_checkpoint_goes(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("x")
    fitted = FitResult(seconds=12.4, losses=[(1, 0.5), (FIT["steps"], 0.25)])
    write_metrics(tmp_path / "m.json", fitted, tmp_path / "state", {"psnr": 30.0})
    assert read_json(tmp_path / "m.json") == {"loss": 0.25, "seconds": 12, "psnr": 30.0}
    assert not (tmp_path / "state").exists()
