"""Stable Diffusion 1.5 at its true size, with random weights: one step and one sample on a CPU.

Each run has a process of its own, which gives its memory back and whose peak is its own. What
they took is printed and stands in `full_size.json` in the folder of the test run.
"""

import hashlib
import json
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import resources
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

import adapterbench.training.adapter as training
from adapterbench.adapters.core.adapter import Adapter
from adapterbench.adapters.core.build import build_adapter
from adapterbench.adapters.core.variant import parse_variant
from adapterbench.core.config import SampleParams, TrainParams
from adapterbench.core.environment import peak_memory_mb
from adapterbench.core.files import MANIFEST, read_json, sha256, write_json
from adapterbench.formats.encoded import COMMON
from adapterbench.frozen.load import load_part
from adapterbench.sampling.sampler import ImageId, Sampler

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.usefixtures("workplace", "much_memory"),
]

LIMIT_GIB = 20
CAPTIONS = ["", "a teapot on a chair"]
MLP = {"projection": "mlp", "hidden_layers": 2, "expansion": 4, "tokens": 4}
LINEAR = {"projection": "linear", "tokens": 4}
FEEDFORWARD = {"projection": "feedforward", "expansion": 4, "tokens": 4}
DECOUPLED, LORA, APPEND = (
    {"attention": "decoupled"},
    {"attention": "lora", "rank": 128},
    {"attention": "append"},
)
VARIANTS: dict[str, tuple[dict[str, Any], int]] = {
    "ip_adapter": (LINEAR | DECOUPLED, 20_746_752),
    "ip_adapter_mlp": (MLP | DECOUPLED, 30_712_320),
    "ip_adapter_lora": (LINEAR | LORA, 14_307_840),
    "ip_adapter_mlp_lora": (MLP | LORA, 24_273_408),
    "uni_controlnet_global": (FEEDFORWARD | APPEND, 11_804_160),
}
"""The variants of the deck, and how many parameters each trains."""

TRAIN = TrainParams(
    steps=1, batch_size=1, learning_rate=1e-4, weight_decay=0.01, warmup_steps=0, max_grad_norm=1,
    ema_decay=0, log_every=1, checkpoint_every=1, seed=0, drop_image=0, drop_text=0, drop_both=0,
    gradient_checkpointing=True, mixed_precision="no", accumulate=1, compile=False,
    min_snr_gamma=None,
    samples=None,
)  # fmt: skip
SAMPLE = SampleParams(
    items=2,
    images_per_item=1,
    steps=2,
    guidance_scale=3,
    scale=1,
    batch_size=1,
    mixed_precision="no",
    seed=0,
)


@dataclass(frozen=True)
class FullSize:
    """Folders as the stages leave them, and what the runs took."""

    root: Path

    @property
    def backbone(self) -> Path:
        return self.root / "backbone"

    @property
    def encoded(self) -> Path:
        return self.root / "encoded"

    @property
    def report(self) -> Path:
        return self.root / "full_size.json"

    def note(self, name: str, cost: dict[str, float]) -> None:
        """Print a run's cost and add it to the report; it must fit."""
        costs = read_json(self.report) if self.report.exists() else {}
        write_json(self.report, costs | {name: cost})
        print(f"{name}: {json.dumps(cost)} ({self.report})")
        assert cost["peak_gib"] < LIMIT_GIB


def alone(call: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    """What `call` returns in a process of its own, with the process's seconds and peak memory."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(measured, call, *arguments).result()


def measured(call: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    """Run in the process of `alone`."""
    began = time.perf_counter()
    values = call(*arguments)
    seconds = round(time.perf_counter() - began, 1)
    return {"seconds": seconds, "peak_gib": round(peak_memory_mb() / 1024, 2), **values}


def clip_tokenizer() -> CLIPTokenizer:
    """CLIP's own vocabulary, which open_clip brings along."""
    simple = SimpleTokenizer()
    encoder = cast("dict[str, int]", simple.encoder)
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocab = {names.get(token, token): number for token, number in encoder.items()}
    return CLIPTokenizer(vocab=vocab, merges=list(simple.bpe_ranks), model_max_length=77)


def build(root: Path) -> dict[str, float]:
    """Write the pipeline in diffusers layout, fp16, and an encoded shard for each split."""
    torch.manual_seed(0)
    config = resources.files("adapterbench.backbone") / "configs" / "sd15_unet.json"
    unet = UNet2DConditionModel.from_config(json.loads(config.read_text()))
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        sample_size=512,
    )
    tokenizer = clip_tokenizer()
    text = CLIPTextModel(CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
    )).eval()  # fmt: skip
    schedule = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        steps_offset=1, skip_prk_steps=True,
    )  # fmt: skip
    full = FullSize(root)
    write_encoded(full.encoded, embedded(text, tokenizer), side=64, width=512)
    absent: Any = None  # diffusers' types have no pipeline without a checker
    pipeline = StableDiffusionPipeline(
        vae, text, tokenizer, unet, schedule, absent, absent, requires_safety_checker=False
    )
    pipeline.to(torch.float16).save_pretrained(full.backbone, safe_serialization=True)
    parts = {"unet": unet, "vae": vae, "text_encoder": text}
    return {name: sum(w.numel() for w in part.parameters()) for name, part in parts.items()}


@torch.no_grad()
def embedded(text: CLIPTextModel, tokenizer: CLIPTokenizer) -> Tensor:
    """The embeddings of `CAPTIONS`."""
    ids = tokenizer(CAPTIONS, padding="max_length", return_tensors="pt").input_ids
    embeds: Tensor = text(ids).last_hidden_state.half()
    assert embeds.shape == (2, 77, 768)
    return embeds


def write_encoded(folder: Path, texts: Tensor, side: int, width: int) -> None:
    """What stage `encode` leaves of one square image a split, see `formats.encoded`.

    Args:
        folder: to be made.
        texts: what is stored of `CAPTIONS`.
        side: of the latents.
        width: of an image embedding.
    """
    empty, caption = texts
    folder.mkdir()
    splits = {}
    for split in ("train", "validation"):
        name = f"{split}-00000.safetensors"
        tensors = {
            "latents": torch.randn(1, 4, side, side).half(),
            "image_embeds": torch.randn(1, width).half(),
        }
        save_file(tensors, folder / name)
        sample = {"key": "teapot", "concept": "teapot", "captions": CAPTIONS[1:]}
        index = f"{split}-00000.json"
        shard = file(folder / name)
        write_json(folder / index, {**shard, "samples": [sample], "skipped": []})
        facts = {"index": index, "index_sha256": sha256(folder / index), "samples": 1}
        splits[split] = [shard | facts]
    phrasings = {split: torch.zeros(1, 1, dtype=torch.long) for split in splits}
    save_file({"empty": empty.clone(), **phrasings}, folder / COMMON)
    save_file({"texts": caption[None].clone()}, folder / "texts-00000.safetensors")
    manifest = {
        "embed_dim": width,
        "splits": splits,
        "texts": [file(folder / "texts-00000.safetensors")],
        "common": file(folder / COMMON),
    }
    write_json(folder / MANIFEST, manifest)


def file(path: Path) -> dict[str, str]:
    """How a manifest names a file."""
    return {"name": path.name, "sha256": sha256(path)}


def digest(unet: nn.Module) -> str:
    """SHA-256 of the base weights, by name."""
    total = hashlib.sha256()
    for name, weight in unet.state_dict().items():
        total.update(name.encode())
        total.update(weight.contiguous().numpy())
    return total.hexdigest()


def one_step(root: Path, name: str) -> dict[str, float]:
    """Train a variant for a step; the base must keep its bits and get no gradient."""
    full, variant = FullSize(root), parse_variant(VARIANTS[name][0])
    unets: list[nn.Module] = []
    digests: list[str] = []
    weights: list[nn.Parameter] = []
    received: set[int] = set()

    def load(backbone: Path, part: str) -> Any:
        loaded = load_part(backbone, part)
        if part == "unet":
            unets.append(loaded)
            digests.append(digest(loaded))
        return loaded

    def build_and_watch(*arguments: Any) -> Adapter:
        adapter = build_adapter(*arguments)
        weights.extend(adapter.trainable_parameters())
        for weight in weights:
            weight.register_post_accumulate_grad_hook(lambda w: received.add(id(w)))
        return adapter

    with patch.multiple(training, load_part=load, build_adapter=build_and_watch):
        trained = training.train_adapter(
            name, variant, TRAIN, full.encoded, full.backbone, root / "models" / name,
            lambda *_: None,
        )  # fmt: skip
    (unet,) = unets
    assert digest(unet) == digests[0]
    assert not any(w.requires_grad or w.grad is not None for w in unet.parameters())
    assert received == {id(weight) for weight in weights}
    return {
        "step_seconds": trained.costs["train_seconds"],
        "parameters": trained.costs["trainable_params"],
        "loss": trained.costs["loss"],
    }


def one_sample(root: Path) -> dict[str, float]:
    """Make an image of 512 x 512 with the sampler of stage `sample`."""
    full = FullSize(root)
    sampler = Sampler(SAMPLE, full.encoded, full.backbone, root / "models" / "ip_adapter")
    began = time.perf_counter()
    (image,) = sampler.make([ImageId(0, "teapot", 0)], with_text=True)
    assert image.size == (512, 512)
    return {"sample_seconds": round(time.perf_counter() - began, 1)}


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> FullSize:
    """Backbone and encoded shards; the networks have SD 1.5's own numbers of parameters."""
    root = tmp_path_factory.mktemp("full")
    made = FullSize(root)
    cost = alone(build, root)
    made.note("build", cost)
    assert cost["unet"] == 859_520_964
    assert cost["vae"] == 83_653_863
    assert cost["text_encoder"] == 123_060_480
    return made


@pytest.mark.parametrize("name", VARIANTS)
def test_a_step_of_a_variant(full: FullSize, name: str) -> None:
    cost = alone(one_step, full.root, name)
    full.note(name, cost)
    assert cost["parameters"] == VARIANTS[name][1]


def test_a_sample(full: FullSize) -> None:
    if not (full.root / "models" / "ip_adapter").exists():
        alone(one_step, full.root, "ip_adapter")
    full.note("sample", alone(one_sample, full.root))
