"""The stages over SDXL, each on what the one before makes, held to diffusers' own pipeline."""

import tarfile
from collections.abc import Iterator
from contextlib import chdir
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, StableDiffusionXLPipeline
from peft import LoraConfig, get_peft_model_state_dict
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from toy_backbone import CLIP_PARAMS, SAMPLE, VARIANT
from toy_xl import ToyXL
from training.test_adapter import Log, train_params

from adapterbench.adapters.core.build import build_adapter
from adapterbench.adapters.core.storage import load_adapter
from adapterbench.adapters.core.variant import parse_variant
from adapterbench.backbone.bases import fetch_base
from adapterbench.core.config import BackboneParams, IllustrateParams
from adapterbench.core.errors import UserError
from adapterbench.encoding.shards import encode
from adapterbench.exchange.ip_adapter import save_ip_adapter, to_ip_adapter
from adapterbench.formats.encoded import EncodedSplit
from adapterbench.formats.generated import Illustrations
from adapterbench.frozen.load import load_part
from adapterbench.illustrating.illustrate import Inputs, illustrate
from adapterbench.sampling.items import choose_items, noise
from adapterbench.sampling.methods import training_free_method
from adapterbench.sampling.sampler import sample
from adapterbench.scoring.scores import load_scorer, score_samples
from adapterbench.training.adapter import train_adapter
from adapterbench.training.loop import learning_rate, seeded

PARAMS = SAMPLE.model_copy(update={"batch_size": 2})
WEIGHTS = "ip_adapter.safetensors"


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """A process has one precision for life; a test has its own."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def trained(xl: ToyXL, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `models/toy`, trained at a rate that moves it far."""
    folder = tmp_path_factory.mktemp("trained")
    with chdir(folder):
        train(xl, Path("models/toy"), learning_rate=0.1)
    AcceleratorState._reset_state(reset_partial_state=True)
    return folder / "models/toy"


def train(xl: ToyXL, out: Path, **changes: Any) -> list[tuple[int, float]]:
    """Train over SDXL; the losses."""
    params, variant = train_params(**changes), parse_variant(VARIANT)
    return train_adapter("toy", variant, params, xl.encoded, xl.backbone, out, Log()).losses


def chosen(xl: ToyXL) -> list[tuple[int, dict[str, Any]]]:
    """Number and facts of each sampled item."""
    samples = EncodedSplit(xl.encoded, "validation").samples
    return [(number, samples[number]) for number in choose_items(samples, PARAMS.items, 0)]


def read(path: Path) -> dict[str, np.ndarray]:
    """Pixels by member name."""
    with tarfile.open(path) as tar:
        files = {member.name: tar.extractfile(member) for member in tar}
        return {n: np.asarray(Image.open(BytesIO(f.read())), int) for n, f in files.items() if f}


@pytest.fixture
def plain(xl_pipeline: StableDiffusionXLPipeline) -> StableDiffusionXLPipeline:
    """diffusers' own pipeline with the solver."""
    solver: Any = DPMSolverMultistepScheduler.from_config(xl_pipeline.scheduler.config)
    xl_pipeline.scheduler = solver
    return xl_pipeline


def by_diffusers(pipe: Any, xl: ToyXL, protocol: str, **more: Any) -> dict[str, np.ndarray]:
    """The images of a protocol by a pipeline that tokenises and embeds on its own."""
    images = {}
    for number, item in chosen(xl):
        embeds = EncodedSplit(xl.encoded, "validation").row(number)[1].float()[None]
        prompt = {name: [value(embeds)] for name, value in more.items()}
        image = pipe(
            item["captions"][0] if protocol == "image_text" else "",
            negative_prompt="",
            height=32,
            width=32,
            latents=noise(item["key"], 0, 0, (4, 4, 4))[None],
            num_inference_steps=PARAMS.steps,
            guidance_scale=PARAMS.guidance_scale,
            **prompt,
        ).images[0]
        images[f"{item['key']}.0.png"] = np.asarray(image, int)
    return images


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    """Equal up to one rounding step per pixel, which depends on the batch size."""
    assert a.keys() == b.keys()
    return all(np.abs(a[name] - b[name]).max() <= 1 for name in a)


@pytest.mark.usefixtures("workplace")
def test_stored_texts_are_refused_before_anything_is_encoded(xl: ToyXL) -> None:
    params = xl.encode_params.model_copy(update={"texts": "stored"})
    with pytest.raises(UserError, match=r"encode\.texts = stored .* set it to live") as caught:
        encode(params, xl.shards, xl.backbone, Path("encoded"))
    assert "\n" not in str(caught.value)
    assert list(Path().rglob("*.safetensors")) == []


@pytest.mark.usefixtures("workplace")
def test_losses_are_those_of_a_plain_loop(
    xl: ToyXL, xl_pipeline: StableDiffusionXLPipeline
) -> None:
    """Texts and pooled texts are those of diffusers' pipeline, dropped together."""
    params = train_params(log_every=1, batch_size=6, steps=3, drop_text=0.5)
    losses = train(xl, Path("out"), **params.model_dump())

    shards = [load_file(file) for file in sorted(xl.encoded.glob("train-*.safetensors"))]
    latents, embeds = (
        torch.cat([shard[name] for shard in shards]).float() for name in ("latents", "image_embeds")
    )
    captions = [row["captions"] for row in EncodedSplit(xl.encoded, "train").samples]
    schedule = DDPMScheduler.from_config(load_part(xl.backbone, "scheduler").config)
    unet = xl_pipeline.unet.to(memory_format=torch.channels_last).requires_grad_(False)
    torch.manual_seed(params.seed)
    adapter = build_adapter(parse_variant(VARIANT), unet, CLIP_PARAMS.embed_dim)
    adapter.attach(unet)
    optimizer = torch.optim.AdamW(adapter.parameters(), betas=(0.9, 0.99), weight_decay=0.0)
    order = torch.randperm(18, generator=seeded(params.seed, 0))
    pipeline: Any = xl_pipeline  # its types know one text alone
    for step, (done, loss) in enumerate(losses):
        own = seeded(params.seed, step, 1)
        index = order[6 * step : 6 * step + 6]
        phrasing, drop = torch.rand(6, generator=own), torch.rand(6, generator=own)
        noised = torch.randn(6, *latents.shape[1:], generator=own)
        t = torch.randint(0, 1000, (6,), generator=own)
        no_image = (drop < 0.1) | ((drop >= 0.6) & (drop < 0.7))
        no_text = (drop >= 0.1) & (drop < 0.7)
        # the table of phrasings is as wide as the sample with most of them
        said = [
            "" if left_out else captions[i][int(u * 3) % len(captions[i])]
            for i, u, left_out in zip(index.tolist(), phrasing, no_text, strict=True)
        ]
        text, _, pooled, _ = pipeline.encode_prompt(said, do_classifier_free_guidance=False)
        added = {
            "text_embeds": pooled,
            "time_ids": torch.tensor(6 * [[32.0, 32, 0, 0, 32, 32]]),
            "image_embeds": [torch.where(no_image[:, None], 0, embeds[index])[:, None]],
        }
        noisy = schedule.add_noise(latents[index], noised, t)
        predicted = unet(noisy, t, text.detach(), added_cond_kwargs=added).sample
        value = (predicted - noised).square().mean()  # SDXL predicts the noise
        value.backward()
        nn.utils.clip_grad_norm_(adapter.parameters(), params.max_grad_norm)
        optimizer.param_groups[0]["lr"] = learning_rate(step, params)
        optimizer.step()
        optimizer.zero_grad()
        assert (done, loss) == (step + 1, pytest.approx(value.item(), rel=1e-5))


@pytest.mark.usefixtures("workplace")
def test_bf16_and_checkpointing_train_alike(xl: ToyXL) -> None:
    """As the profile trains: UNet and both text encoders in 16 bits, activations recomputed."""
    full = [loss for _, loss in train(xl, Path("full"), log_every=1)]
    AcceleratorState._reset_state(reset_partial_state=True)
    options = {"mixed_precision": "bf16", "gradient_checkpointing": True, "log_every": 1}
    half = [loss for _, loss in train(xl, Path("half"), **options)]
    assert half == pytest.approx(full, rel=2e-2)
    assert half != full


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("protocol", ["image", "image_text"])
def test_without_an_adapter_it_is_the_plain_pipeline(
    xl: ToyXL, plain: StableDiffusionXLPipeline, protocol: str
) -> None:
    sample(PARAMS, xl.encoded, xl.backbone, None, [protocol], Path("out"))
    assert same(read(Path("out", f"{protocol}.tar")), by_diffusers(plain, xl, protocol))


@pytest.mark.usefixtures("workplace")
def test_a_trained_adapter_makes_the_images_of_diffusers_own_loader(
    xl: ToyXL, plain: StableDiffusionXLPipeline, trained: Path
) -> None:
    sample(PARAMS, xl.encoded, xl.backbone, trained, ["image_text"], Path("out"))
    ours, base = read(Path("out/image_text.tar")), by_diffusers(plain, xl, "image_text")
    unet = load_part(xl.backbone, "unet")
    weights = to_ip_adapter(load_adapter(trained, unet), unet, "linear")
    save_ip_adapter(weights, Path(WEIGHTS))
    plain.load_ip_adapter(".", subfolder="", weight_name=WEIGHTS, image_encoder_folder=None)

    def both(embeds: Tensor) -> Tensor:
        return torch.stack([torch.zeros_like(embeds), embeds])

    theirs = by_diffusers(plain, xl, "image_text", ip_adapter_image_embeds=both)
    assert same(ours, theirs)
    assert max(np.abs(ours[name] - base[name]).max() for name in base) > 10


@pytest.mark.usefixtures("workplace")
def test_bf16_rounds_the_same_images(xl: ToyXL, trained: Path) -> None:
    """Half-precision images are closer to the full ones than these to each other."""
    sets = []
    for precision in ("no", "bf16"):
        params = PARAMS.model_copy(update={"mixed_precision": precision})
        sample(params, xl.encoded, xl.backbone, trained, ["image"], Path(precision))
        sets.append(list(read(Path(precision, "image.tar")).values()))
    full, half = sets
    off = [np.abs(a - b).mean() for a, b in zip(full, half, strict=True)]
    assert 0 < max(off) < np.abs(full[0] - full[1]).mean() / 2


@pytest.mark.usefixtures("workplace")
def test_images_are_scored_and_illustrated(xl: ToyXL, trained: Path) -> None:
    sample(PARAMS, xl.encoded, xl.backbone, trained, ["image", "image_text"], Path("toy"))
    scorer = load_scorer(xl.score_params(), xl.folders, xl.shards, Path("toy"))
    table = score_samples(scorer, Path("toy"), Path("toy.parquet"))
    assert len(table) == 2 * PARAMS.items
    assert np.isfinite(table[["clip_t", "clip_i", "neutral"]].to_numpy()).all()

    prompts = [{"image": "frame", "text": "a red bar"}, {"image": "frame", "text": ""}]
    params = IllustrateParams.model_validate(
        {"prompts": prompts, "scales": [0, 1], "sweep_items": 2, "pairs": 0, "twin_cosine": None}
    )
    styled(xl, Path("lora"))
    lora = BackboneParams(source="local", path="lora/lora.safetensors", revision=None)
    fetch_base("styled", lora, xl.backbone, Path("bases/styled"))
    inputs = Inputs(xl.encoded, xl.shards, xl.backbone, Path("bases"), trained)
    illustrate(params, PARAMS, xl.score_params(), inputs, xl.folders, Path("drawn"))
    layout = Illustrations(Path("drawn"))
    off, on = (list(read(layout.scale(scale)).values()) for scale in (0, 1))
    assert len(off) == len(on) == 2
    assert not any(map(np.array_equal, off, on))
    assert len(read(layout.prompts)) == len(prompts)
    assert len(read(layout.base("styled"))) == 1  # both name the same item


def styled(xl: ToyXL, folder: Path) -> None:
    """Write a LoRA of SDXL's UNet as diffusers' trainer does."""
    unet = load_part(xl.backbone, "unet")
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
    StableDiffusionXLPipeline.save_lora_weights(
        folder, unet_lora_layers=get_peft_model_state_dict(unet), weight_name="lora.safetensors"
    )


@pytest.mark.parametrize(
    ("name", "values"), [("img2img", {"strength": 0.5}), ("reference_only", {"weight": 1.0})]
)
def test_methods_without_training_are_refused_in_one_line(
    xl: ToyXL, tmp_path: Path, name: str, values: dict[str, float]
) -> None:
    method = training_free_method(name, values)
    with pytest.raises(UserError, match=r"one text encoder, and .* has 2: leave it empty"):
        sample(
            PARAMS, xl.encoded, xl.backbone, None, ["image"], tmp_path / name, training_free=method
        )
    assert not (tmp_path / name).exists()
