"""Training an adapter on the toy project: what changes, what stays, what a kill costs."""

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from diffusers.models.resnet import ResnetBlock2D
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter
from toy_backbone import CLIP_PARAMS, FIT, PLUS, VARIANT, Toy

import adapterbench.training.adapter as module
import adapterbench.training.batches as batches
from adapterbench.adapters.core.adapter import cross_attention_layers
from adapterbench.adapters.core.build import build_adapter
from adapterbench.adapters.core.storage import load_adapter
from adapterbench.adapters.core.variant import parse_variant
from adapterbench.core.config import TrainParams, parse
from adapterbench.core.errors import UserError
from adapterbench.core.files import sha256
from adapterbench.formats.encoded import EncodedSplit
from adapterbench.frozen.conditions import Texts
from adapterbench.frozen.load import load_part
from adapterbench.training.adapter import Trained, drop_conditions, memory, train_adapter
from adapterbench.training.loop import learning_rate, seeded

ROOT = Path(__file__).parents[2]
LORA = {"projection": "mlp", "attention": "lora", "tokens": 2, "hidden_layers": 1, "expansion": 2,
        "rank": 2}  # fmt: skip
GLOBAL = {"projection": "feedforward", "attention": "append", "tokens": 4, "expansion": 2}

pytestmark = pytest.mark.usefixtures("workplace")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """A process has one precision for life; a test has its own."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def train_params(**changes: Any) -> TrainParams:
    rates = {"drop_image": 0.1, "drop_text": 0.1, "drop_both": 0.1}
    values = {
        **FIT,
        **rates,
        "steps": 5,
        "checkpoint_every": 2,
        "log_every": 2,
        "gradient_checkpointing": False,
        "mixed_precision": "no",
        "accumulate": 1,
        "compile": False,
        "min_snr_gamma": None,
        "samples": None,
    }
    return TrainParams(**values | changes)


class Log:
    """Collects what is logged and dies at step `stop`."""

    def __init__(self, stop: int | None = None) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.stop = stop

    def __call__(self, step: int, values: dict[str, float]) -> None:
        self.rows.append((step, values))
        if step == self.stop:
            raise KeyboardInterrupt


def train(
    toy: Toy,
    out: str,
    variant: dict[str, Any] = VARIANT,
    on_log: Log | None = None,
    **changes: Any,
) -> Trained:
    return train_adapter(
        "toy",
        parse_variant(variant),
        train_params(**changes),
        toy.encoded,
        toy.backbone,
        Path(out),
        on_log or Log(),
    )


def weights(out: str) -> bytes:
    return Path(out, "adapter.safetensors").read_bytes()


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The UNets that are trained over, as they come."""
    unets: list[nn.Module] = []

    def remembered(backbone: Path, part: str) -> Any:
        network = load_part(backbone, part)
        if part == "unet":
            unets.append(network)
        return network

    monkeypatch.setattr(module, "load_part", remembered)
    return unets


@pytest.mark.parametrize(
    "variant", [VARIANT, LORA, GLOBAL, PLUS], ids=["decoupled", "lora", "append", "plus"]
)
def test_only_the_adapter_learns(
    patches: Toy, loaded: list[nn.Module], variant: dict[str, Any]
) -> None:
    toy = patches
    train(toy, "out", variant)
    base = load_part(toy.backbone, "unet").state_dict()
    after = loaded[0].state_dict()
    assert after.keys() == base.keys()
    assert all(torch.equal(after[name], base[name]) for name in base)
    assert all(weight.grad is None for weight in loaded[0].parameters())

    torch.manual_seed(FIT["seed"])
    fresh = build_adapter(
        parse_variant(variant), load_part(toy.backbone, "unet"), CLIP_PARAMS.embed_dim
    )
    trained = load_adapter(Path("out"), load_part(toy.backbone, "unet"))
    moved = [
        name
        for name, weight in fresh.named_parameters()
        if not torch.equal(weight, trained.get_parameter(name))
    ]
    assert moved == [name for name, _ in fresh.named_parameters()]


def test_two_runs_write_the_same_bytes(toy: Toy) -> None:
    first, second = train(toy, "a"), train(toy, "b")
    assert weights("a") == weights("b")
    assert first.losses == second.losses
    assert weights("a") != (train(toy, "c", seed=1), weights("c"))[1]


@pytest.mark.parametrize(
    ("variant", "prompt_name"),
    [(VARIANT, "image_embeds"), (PLUS, "patches")],
    ids=["linear", "plus"],
)
def test_losses_are_those_of_a_plain_loop(
    patches: Toy, variant: dict[str, Any], prompt_name: str
) -> None:
    """A dropped image prompt is zeros, or the patches of a zero image."""
    toy = patches
    params = train_params(log_every=1, batch_size=6, warmup_steps=2)  # 18 images: 1 2/3 epochs
    losses = train(toy, "out", variant, **params.model_dump()).losses

    files = sorted(toy.encoded.glob("train-*.safetensors"))
    shards = [load_file(file) for file in files]
    latents, embeds = (
        torch.cat([shard[name] for shard in shards]).float() for name in ("latents", prompt_name)
    )
    texts = load_file(toy.encoded / "texts-00000.safetensors")["texts"].float()
    common = load_file(toy.encoded / "common.safetensors")
    zeros = torch.zeros(embeds.shape[1:])
    without = common["zero_patches"].float() if prompt_name == "patches" else zeros
    unet = load_part(toy.backbone, "unet").to(memory_format=torch.channels_last)
    schedule = load_part(toy.backbone, "scheduler")
    torch.manual_seed(params.seed)
    adapter = build_adapter(parse_variant(variant), unet, CLIP_PARAMS.embed_dim)
    adapter.attach(unet)
    optimizer = torch.optim.AdamW(adapter.parameters(), betas=(0.9, 0.99), weight_decay=0.0)
    orders = [torch.randperm(18, generator=seeded(params.seed, epoch)) for epoch in range(2)]
    for step, (done, loss) in enumerate(losses):
        own = seeded(params.seed, step, 1)
        index = torch.cat(orders)[6 * step : 6 * step + 6]
        phrasing, drop = torch.rand(6, generator=own), torch.rand(6, generator=own)
        noise = torch.randn(6, *latents.shape[1:], generator=own)
        t = torch.randint(0, 1000, (6,), generator=own)
        rows = common["train"][index, (phrasing * common["train"].shape[1]).long()]
        no_image = (drop < 0.1) | ((drop >= 0.2) & (drop < 0.3))
        no_text = (drop >= 0.1) & (drop < 0.3)
        prompt = torch.stack(
            [without if off else embeds[n] for off, n in zip(no_image, index, strict=True)]
        )
        text = torch.where(no_text[:, None, None], common["empty"].float(), texts[rows])
        noisy = schedule.add_noise(latents[index], noise, t)
        prompts = {"image_embeds": [prompt[:, None]]}
        made = unet(noisy, t, encoder_hidden_states=text, added_cond_kwargs=prompts).sample
        value = (made - schedule.get_velocity(latents[index], noise, t)).square().mean()
        value.backward()
        nn.utils.clip_grad_norm_(adapter.parameters(), params.max_grad_norm)
        optimizer.param_groups[0]["lr"] = learning_rate(step, params)
        optimizer.step()
        optimizer.zero_grad()
        assert (done, loss) == (step + 1, pytest.approx(value.item(), rel=1e-6))


def test_batches_that_processes_gather_ahead_change_no_bit(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train(toy, "here", accumulate=2)
    monkeypatch.setattr(batches, "workers", lambda _device: 2)
    second = train(toy, "ahead", accumulate=2)
    assert weights("here") == weights("ahead")
    assert first.losses == second.losses


def test_fewer_training_images_are_the_same_at_every_seed(toy: Toy) -> None:
    data = EncodedSplit(toy.encoded, "train")
    schedule = load_part(toy.backbone, "scheduler")
    rows = [data.row(number)[0].float() for number in range(len(data))]

    def seen(samples: int | None, seed: int) -> set[int]:
        params = train_params(samples=samples, seed=seed)
        local = batches.LocalBatches(data, schedule, params, slice(0, params.batch_size))
        drawn = torch.cat([local.draw(step).latents for step in range(10)])
        return {n for n, row in enumerate(rows) if (drawn == row).flatten(1).all(1).any()}

    few = seen(4, 0)
    assert len(few) == 4
    assert few == seen(4, 1)
    assert few < seen(9, 0) < seen(None, 0) == set(range(18))
    message = r"train.samples = 19, but the training split has 18: lower it, or set it to null"
    with pytest.raises(UserError, match=message):
        train(toy, "out", samples=19)
    assert not Path("out").exists()


GATHERED_AHEAD = """
import runpy, sys
from adapterbench.training import batches

batches.workers = lambda _device: 1
sys.path.insert(0, sys.argv[1].rpartition("/")[0])
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a stage whose batches a process gathers, as on a GPU."""


def test_a_gathering_process_that_is_killed_is_one_line(toy: Toy, tmp_path: Path) -> None:
    """The training has a process of its own: torch raises on SIGCHLD wherever a process then is."""
    params = train_params(steps=100_000).model_dump()
    Path("params.yaml").write_text(yaml.safe_dump({"variants": {"toy": VARIANT}, "train": params}))
    command = [sys.executable, "-c", GATHERED_AHEAD, str(ROOT / "stages/train.py"), "toy"]
    command += ["--encoded", str(toy.encoded), "--backbone", str(toy.backbone)]
    command += ["--out", "out", "--metrics", "m/costs.json", "--curve", "m/curve.csv"]
    env = {**os.environ, "ACCELERATE_USE_CPU": "true", "ADAPTERBENCH_FOLLOW": "0"}
    said = tmp_path / "said"
    with said.open("w") as file:
        training = subprocess.Popen(command, stdout=file, stderr=file, env=env)
    try:
        while not list(Path().glob(".resume/train-toy-*.safetensors")):
            assert training.poll() is None, said.read_text()
            time.sleep(0.02)
        [gathering] = psutil.Process(training.pid).children()
        gathering.kill()
        assert training.wait() == 1, said.read_text()
    finally:
        training.kill()
        training.wait()
    text = said.read_text()
    lines = text.splitlines()
    assert lines[-1].startswith("error: a process that gathers batches has died"), text
    assert [line for line in lines if line.startswith("error:")] == lines[-1:]
    assert "Traceback" not in text
    assert not Path("out").exists()
    assert not Path("m").exists()


def test_a_gathering_process_that_dies_is_an_error_once(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when its socket is found closed: it is gone, and cannot raise again, with the error."""
    ahead, try_get_data = [], _MultiProcessingDataLoaderIter._try_get_data

    def closed(self: Any, *arguments: Any) -> Any:
        ahead.append(self)
        if len(ahead) == 3:
            raise EOFError
        return try_get_data(self, *arguments)

    monkeypatch.setattr(_MultiProcessingDataLoaderIter, "_try_get_data", closed)
    monkeypatch.setattr(batches, "workers", lambda _device: 1)
    with pytest.raises(RuntimeError, match="a DataLoader worker has died"):
        train(toy, "out")
    assert not ahead[-1]._worker_pids_set  # those that the handler of SIGCHLD looks at
    assert not any(worker.is_alive() for worker in ahead[-1]._workers)


def test_damage_that_a_gathering_process_meets_is_one_line(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(toy.encoded, tmp_path / "encoded")
    (tmp_path / "backbone").symlink_to(toy.backbone)
    path = tmp_path / "encoded/texts-00000.safetensors"  # read when it is asked for
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    monkeypatch.setattr(batches, "workers", lambda _device: 1)
    with pytest.raises(UserError, match=r"texts-00000\.safetensors is missing or damaged") as error:
        train(Toy(tmp_path), "out")
    assert "\n" not in str(error.value)


def test_a_device_without_memory_is_one_line_that_says_how_to_need_less(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2.00 GiB")

    monkeypatch.setattr(module, "denoising_loss", full)
    with pytest.raises(UserError, match=r"accumulate \(now 1\).*batch_size \(now 4\)") as caught:
        train(toy, "out")
    assert "\n" not in str(caught.value)
    assert not Path("out").exists()


@pytest.mark.parametrize("stop", [2, 4])
def test_a_killed_run_ends_like_an_unbroken_one(toy: Toy, stop: int) -> None:
    unbroken = train(toy, "unbroken")
    with pytest.raises(KeyboardInterrupt):
        train(toy, "out", on_log=Log(stop))
    assert not Path("out").exists()
    log = Log()
    resumed = train(toy, "out", on_log=log)
    assert weights("out") == weights("unbroken")
    assert resumed.losses == unbroken.losses
    assert log.rows[0][0] == stop  # only what came after the last checkpoint is done again
    assert list(Path(".resume").iterdir()) == []


@pytest.mark.parametrize("variant", [VARIANT, LORA, GLOBAL], ids=["decoupled", "lora", "append"])
def test_gradient_checkpointing_runs_blocks_twice_and_changes_no_bit(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, variant: dict[str, Any]
) -> None:
    calls: list[str] = []
    forward = ResnetBlock2D.forward

    def counted(self: ResnetBlock2D, *arguments: Any) -> torch.Tensor:
        calls.append(where)
        return forward(self, *arguments)

    monkeypatch.setattr(ResnetBlock2D, "forward", counted)
    for where in ("plain", "checkpointed"):
        train(toy, where, variant, gradient_checkpointing=where == "checkpointed")
    assert weights("plain") == weights("checkpointed")
    assert calls.count("checkpointed") > 1.5 * calls.count("plain")  # some blocks are left out


def test_bf16_is_the_frozen_weights_alone(toy: Toy, loaded: list[nn.Module]) -> None:
    """The adapter starts from the weights as they were, and is saved so: here it hardly moves."""
    train(toy, "out", mixed_precision="bf16", steps=1, learning_rate=1e-9)
    assert {weight.dtype for weight in loaded[0].parameters()} == {torch.bfloat16}
    base = load_part(toy.backbone, "unet")
    start = cross_attention_layers(base)
    for path, branch in load_adapter(Path("out"), base).layers.items():
        torch.testing.assert_close(
            branch.get_parameter("to_k.weight"), start[path].to_k.weight, rtol=0, atol=1e-8
        )
    train(toy, "longer", mixed_precision="bf16")
    assert weights("longer") != weights("out")


def test_another_parameter_starts_afresh(toy: Toy) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(toy, "out", on_log=Log(4))
    log = Log()
    train(toy, "out", on_log=log, learning_rate=1e-4)
    assert [step for step, _ in log.rows] == [2, 4, 5]


def test_the_costs_are_those_of_the_table(toy: Toy) -> None:
    trained = train(toy, "out")
    trained.write(Path("m/costs.json"), Path("m/curve.csv"))
    costs = json.loads(Path("m/costs.json").read_text())
    assert costs == trained.costs
    assert costs["trainable_params"] == sum(
        w.numel() for w in load_file("out/adapter.safetensors").values()
    )
    assert costs["steps"] == 5
    assert costs["loss"] == trained.losses[-1][1]
    assert costs["checkpoint_mb"] == pytest.approx(len(weights("out")) / 2**20, abs=1e-3)
    assert costs["images_per_second"] > 0
    assert costs["peak_memory_mb"] == costs["host_memory_mb"] > 10
    curve = pd.read_csv("m/curve.csv")
    assert list(curve.columns) == ["step", "loss"]
    assert curve["step"].tolist() == [2, 4, 5]
    assert curve["loss"].tolist() == pytest.approx([loss for _, loss in trained.losses])


def test_the_memory_of_a_gpu_stands_beside_that_of_its_host() -> None:
    found = memory(3.0)
    assert found["peak_memory_mb"] == 3
    assert found["host_memory_mb"] > 10


def test_the_adapter_says_what_it_was_trained_over(toy: Toy) -> None:
    train(toy, "a", {**VARIANT, "train": {"steps": 5}})
    config = json.loads(Path("a/adapter_config.json").read_text())
    assert config["variant"] == VARIANT
    assert config["embed_dim"] == CLIP_PARAMS.embed_dim
    assert len(config["backbone"]["digest"]) == 64


def test_a_diverging_run_is_one_line_and_publishes_nothing(toy: Toy) -> None:
    with pytest.raises(UserError, match=r"toy: the loss is not finite at step \d.*lower") as caught:
        train(toy, "out", learning_rate=1e30)
    assert "\n" not in str(caught.value)
    assert not Path("out").exists()


def test_bad_latents_are_one_line_and_publish_nothing(toy: Toy, tmp_path: Path) -> None:
    shutil.copytree(toy.encoded, tmp_path / "encoded")
    (tmp_path / "backbone").symlink_to(toy.backbone)
    path = tmp_path / "encoded" / "train-00001.safetensors"
    tensors = load_file(path)
    tensors["latents"][:] = math.nan
    before = sha256(path)
    save_file(tensors, path)
    with pytest.raises(UserError, match=r"train-00001\.safetensors is missing or damaged"):
        train(Toy(tmp_path), "out")
    manifest = tmp_path / "encoded" / "manifest.json"  # as if the encoder had made them
    manifest.write_text(manifest.read_text().replace(before, sha256(path)))
    with pytest.raises(UserError, match="look for bad inputs"):
        train(Toy(tmp_path), "out")
    assert not Path("out").exists()


@pytest.mark.parametrize("missing", ["encoded", "encoded/train-00001.safetensors", "backbone",
                                     "backbone/unet", "backbone/scheduler"])  # fmt: skip
def test_a_missing_input_is_one_line(toy: Toy, tmp_path: Path, missing: str) -> None:
    for name in ("encoded", "backbone"):
        shutil.copytree(toy.root / name, tmp_path / name)
    path = tmp_path / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UserError, match=missing) as caught:
        train(Toy(tmp_path), "out")
    assert "\n" not in str(caught.value)
    assert not Path("out").exists()


COUNT = 20_000
EMBEDS, TEXTS, EMPTY = torch.ones(COUNT, 3), torch.ones(COUNT, 2, 5), torch.full((2, 5), 7.0)
NOTHING = torch.zeros(3)


def dropped(seed: int = 0, **rates: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Which samples lost the image, and which the text."""
    values = {"drop_image": 0.0, "drop_text": 0.0, "drop_both": 0.0, **rates}
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(COUNT, generator=generator)
    empty = Texts(EMPTY[None], torch.full((1, 4), 8.0))
    texts = Texts(TEXTS, torch.ones(COUNT, 4))
    params = train_params(**values)
    image, kept = drop_conditions(EMBEDS, texts, NOTHING, empty, params, draw)
    text, pooled = kept.embeds, kept.pooled
    assert image.shape == (COUNT, 3)
    assert text.shape == TEXTS.shape
    no_image, no_text = (image == 0).all(dim=1), (text == EMPTY).all(dim=(1, 2))
    # dropped as a whole or not at all
    assert torch.equal(image, EMBEDS * ~no_image[:, None])
    assert torch.equal(text[~no_text], TEXTS[~no_text])
    assert pooled is not None
    assert torch.equal(pooled, torch.where(no_text[:, None], 8.0, torch.ones(COUNT, 4)))
    return no_image, no_text


def test_patches_that_are_not_stored_or_of_another_width_are_one_line(
    toy: Toy, patches: Toy
) -> None:
    wrong = {**PLUS, "patch_width": 24}
    for data, row, message in (
        (toy, PLUS, r"encoded holds no patch features: set encode\.patches = true"),
        (patches, wrong, r"variants\.toy\.patch_width = 24, .* 32 wide: set it to 32"),
    ):
        with pytest.raises(UserError, match=message) as error:
            train(data, "out", row)
        assert "\n" not in str(error.value)
    assert not Path("out").exists()


def test_conditions_are_dropped_at_their_rates() -> None:
    no_image, no_text = dropped(drop_image=0.05, drop_text=0.2, drop_both=0.1)
    shares = {
        "image alone": (no_image & ~no_text, 0.05),
        "text alone": (no_text & ~no_image, 0.2),
        "both": (no_image & no_text, 0.1),
        "none": (~no_image & ~no_text, 0.65),
    }
    for share, rate in shares.values():
        spread = math.sqrt(rate * (1 - rate) / COUNT)
        assert share.float().mean().item() == pytest.approx(rate, abs=4 * spread)


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        ("drop_image", (COUNT, 0)),
        ("drop_text", (0, COUNT)),
        ("drop_both", (COUNT, COUNT)),
        (None, (0, 0)),
    ],
)
def test_each_rate_drops_what_it_says(rate: str | None, expected: tuple[int, int]) -> None:
    rates: dict[str, Any] = {rate: 1.0} if rate else {}
    no_image, no_text = dropped(**rates)
    assert (no_image.sum().item(), no_text.sum().item()) == expected


def test_rates_of_more_than_everything_are_one_line() -> None:
    rates = {"drop_image": 0.5, "drop_text": 0.4, "drop_both": 0.2}
    values = train_params().model_dump() | rates
    with pytest.raises(UserError, match=r"^params\.yaml: train: .* is more than 1$"):
        parse(TrainParams, values, "train")


def test_drops_follow_the_generator() -> None:
    rates = {"drop_image": 0.3, "drop_text": 0.3, "drop_both": 0.3}
    first, again, other = (dropped(seed, **rates)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_batch_that_no_machine_holds_is_one_line(toy: Toy) -> None:
    with pytest.raises(UserError, match=r"train\.batch_size = 1,000,000,000 takes .* GiB"):
        train(toy, "out", batch_size=10**9)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {**VARIANT, "image_encoder": "ViT-H-14"},
            r"variants\.toy\.image_encoder .* remove it",
        ),
        (
            {**PLUS, "image_encoder": "ViT-H-14"},
            r"variants\.toy\.image_encoder .* remove it",
        ),
    ],
)
def test_what_stage_encode_does_not_make_is_not_trained_on(
    row: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """It is refused before a model is looked for: here is none."""
    with pytest.raises(UserError, match=message) as caught:
        train(Toy(tmp_path), "out", row)
    assert "\n" not in str(caught.value)
    assert not Path("out").exists()


def test_two_runs_of_the_same_do_not_share_a_checkpoint(toy: Toy) -> None:
    class Meanwhile(Log):
        def __call__(self, step: int, values: dict[str, float]) -> None:
            if not self.rows:
                with pytest.raises(UserError, match="the same run is already in progress"):
                    train(toy, "second")
            super().__call__(step, values)

    train(toy, "first", on_log=Meanwhile())
    assert not Path("second").exists()
    train(toy, "second")
    assert weights("first") == weights("second")
    assert list(Path(".resume").iterdir()) == []
