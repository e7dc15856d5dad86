"""Images of the figures: paired with the scored ones by noise, on the base model asked for."""

import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy_backbone
from diffusers import StableDiffusionPipeline
from PIL import Image
from toy_backbone import FIT, PLUS, Toy

from adapterbench.adapters.core.variant import parse_variant
from adapterbench.backbone.bases import fetch_base
from adapterbench.core.config import BackboneParams, IllustrateParams, TrainParams
from adapterbench.exchange.pipeline import load_adapter
from adapterbench.formats.shards import read_split
from adapterbench.frozen.load import load_part
from adapterbench.illustrating.illustrate import Inputs, draw, items, mentioning
from adapterbench.pretraining import descendant
from adapterbench.sampling.items import noise
from adapterbench.sampling.sampler import Sampler, sample, solver
from adapterbench.scoring.evaluator import load_evaluator
from adapterbench.scoring.scores import load_scorer, score_samples
from adapterbench.training.adapter import train_adapter

SAMPLE = toy_backbone.SAMPLE.model_copy(update={"items": 4, "images_per_item": 2, "batch_size": 4})
PARAMS = IllustrateParams.model_validate(
    {
        "prompts": [{"image": "frame", "text": "blue"}, {"image": "frame", "text": "red"}],
        "scales": [0, 1],
        "sweep_items": 3,
        "twin_cosine": None,
        "pairs": 0,
    }
)


def read(path: Path) -> dict[str, np.ndarray]:
    """Pixels by member name, in order."""
    with tarfile.open(path) as tar:
        files = {member.name: tar.extractfile(member) for member in tar}
        return {name: np.asarray(Image.open(BytesIO(f.read()))) for name, f in files.items() if f}


def same(images: list[Image.Image], tar: dict[str, np.ndarray]) -> bool:
    return all(map(np.array_equal, map(np.asarray, images), tar.values()))


@pytest.fixture(scope="module")
def bases(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The backbone itself, and a LoRA over it."""
    folder = tmp_path_factory.mktemp("bases")
    torch.manual_seed(0)
    unet = descendant.adapted(load_part(toy.backbone, "unet"), rank=2)
    with torch.no_grad():
        for weight in unet.parameters():
            if weight.requires_grad:
                weight.add_(0.3 * torch.randn_like(weight))
    descendant.save(unet, folder / "lora")
    out = folder / "bases"
    for name, path in {"styled": folder / "lora", "twin": toy.backbone}.items():
        fetch_base(name, params(next(path.glob("*.safetensors"), path)), toy.backbone, out / name)
    return out


def params(path: Path) -> BackboneParams:
    return BackboneParams(source="local", path=str(path), revision=None)


@pytest.fixture(scope="module")
def drawn(toy: Toy, bases: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What the stage draws with the adapter and without."""
    folder = tmp_path_factory.mktemp("illustrations")
    wanted = toy.score_params().evaluators.neutral
    neutral = load_evaluator(wanted, toy.folders, "score.evaluators.neutral")
    for name, adapter in {"toy": toy.adapter, "text_only": None}.items():
        inputs = Inputs(
            encoded=toy.encoded,
            shards=toy.shards,
            backbone=toy.backbone,
            bases=bases,
            adapter=adapter,
        )
        draw(PARAMS, SAMPLE, inputs, neutral, folder / name)
    return {name: folder / name for name in ("toy", "text_only")}


def test_there_is_a_tar_for_each_base_and_scale(drawn: dict[str, Path]) -> None:
    def files(folder: Path) -> list[str]:
        return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.tar"))

    common = ["bases/styled.tar", "bases/twin.tar", "prompts.tar"]
    assert files(drawn["toy"]) == [*common, "sweep/0.tar", "sweep/1.tar"]
    assert files(drawn["text_only"]) == common


def test_scale_0_is_text_only_bit_for_bit(toy: Toy, drawn: dict[str, Path]) -> None:
    base = Sampler(SAMPLE, toy.encoded, toy.backbone, None)
    own = items(base)[:3]
    off, on = (read(drawn["toy"] / f"sweep/{scale}.tar") for scale in (0, 1))
    assert list(off) == [f"{image_id.key}.0.png" for image_id in own]
    assert same(base.make(own, True), off)
    assert not same(base.make(own, True), on)


def test_another_base_has_another_unet_and_the_same_adapter(toy: Toy, bases: Path) -> None:
    samplers = [
        Sampler(SAMPLE, toy.encoded, base, toy.adapter) for base in (toy.backbone, bases / "styled")
    ]
    unets = [s.unet.state_dict() for s in samplers]
    changed = {name for name, w in unets[0].items() if not torch.equal(w, unets[1][name])}
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in changed} >= {"conv1", "to_q"}
    own = [s.adapter.state_dict() for s in samplers if s.adapter]
    assert all(torch.equal(own[0][name], own[1][name]) for name in own[0])


def test_bases_are_drawn_from_the_noise_of_the_scored_images(
    toy: Toy, drawn: dict[str, Path]
) -> None:
    for name, adapter, with_text in (("toy", toy.adapter, False), ("text_only", None, True)):
        sampler = Sampler(SAMPLE, toy.encoded, toy.backbone, adapter)
        chosen = mentioning(["frame"], sampler)
        images = sampler.make(chosen, with_text)
        assert same(images, read(drawn[name] / "bases/twin.tar"))
        assert not same(images, read(drawn[name] / "bases/styled.tar"))


def test_an_image_prompt_is_the_first_item_that_is_called_so(
    toy: Toy, drawn: dict[str, Path]
) -> None:
    sampler = Sampler(SAMPLE, toy.encoded, toy.backbone, None)
    captions = {s["key"]: s["captions"][0] for s in sampler.data.samples}
    frames = [p for p in items(sampler) if "frame" in captions[p.key]]
    assert mentioning(["frame", "unheard-of"], sampler) == [frames[0], items(sampler)[1]]
    names = [f"{frames[0].key}.{k}.png" for k in range(2)]
    made = {name: read(folder / "prompts.tar") for name, folder in drawn.items()}
    assert list(made["toy"]) == list(made["text_only"]) == names
    assert len({pixels.tobytes() for tar in made.values() for pixels in tar.values()}) == 4


def test_a_fused_lora_is_the_sum_of_its_parts(toy: Toy, bases: Path) -> None:
    """`W' = W + B A` for a linear layer and a convolution, by hand."""
    from safetensors.torch import load_file

    lora = load_file(bases.parent / "lora/pytorch_lora_weights.safetensors")
    before, after = (
        load_part(base, "unet").state_dict() for base in (toy.backbone, bases / "styled")
    )
    ends = "attn1.to_q.lora_A.weight", "conv1.lora_A.weight"
    for name in [next(n for n in lora if n.endswith(end)) for end in ends]:
        a, b = lora[name].float(), lora[name.replace("lora_A", "lora_B")].float()
        change = (b.flatten(1) @ a.flatten(1)).view(b.shape[0], *a.shape[1:])
        layer = name.removeprefix("unet.").replace("lora_A.", "")
        assert change.abs().max() > 1e-3
        torch.testing.assert_close(after[layer], before[layer] + change, rtol=1e-4, atol=1e-5)


def test_what_is_no_base_is_one_line(toy: Toy, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from adapterbench.core.errors import UserError

    strange = tmp_path / "strange.safetensors"
    save_file({"a": torch.zeros(1)}, strange)
    cases: dict[Any, str] = {
        tmp_path / "nowhere": r"bases\.mine: .*nowhere has no model_index.*set bases\.mine\.path",
        strange: r"bases\.mine: .*strange\.safetensors is not a LoRA for this backbone",
    }
    for path, line in cases.items():
        with pytest.raises(UserError, match=line) as caught:
            fetch_base("mine", params(path), toy.backbone, tmp_path / "out")
        assert "\n" not in str(caught.value)


def test_plus_goes_through_all_stages(
    patches: Toy, bases: Path, workplace: Path, pipeline: StableDiffusionPipeline
) -> None:
    """Trained, sampled as diffusers draws with `load_adapter`, scored and illustrated."""
    row = parse_variant(PLUS)
    model, out = workplace / "models/plus", workplace / "samples/plus"
    rates = {"drop_image": 0.1, "drop_text": 0.5, "drop_both": 0.1}
    rest = {"accumulate": 1, "compile": False, "min_snr_gamma": None, "samples": None}
    fitted = {**FIT, **rates, **rest, "gradient_checkpointing": False, "mixed_precision": "no"}
    params, inputs = TrainParams(**fitted), (patches.encoded, patches.backbone)
    train_adapter("plus", row, params, *inputs, model, on_log=lambda *_: None)
    assert sample(SAMPLE, *inputs, model, ["image", "image_text"], out, variant=row) == 16

    scorer = load_scorer(patches.score_params(), patches.folders, patches.shards, out)
    scores = score_samples(scorer, out, workplace / "plus.parquet")
    assert len(scores) == 16
    assert scores[["clip_t", "clip_i", "neutral"]].notna().all(axis=None)

    parts = {**pipeline.components, "scheduler": solver(patches.backbone)}
    theirs = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    theirs.set_progress_bar_config(disable=True)
    image_prompt = load_adapter(theirs, model, patches.image_encoder)
    drawn = read(out / "image.tar")
    images = {s.key: s.image for s in read_split(patches.shards, "validation")}
    for name, found in list(drawn.items())[:2]:
        key, k, _ = name.split(".")
        image = theirs(
            "",
            **image_prompt(images[key], guidance_scale=SAMPLE.guidance_scale),
            latents=noise(key, int(k), SAMPLE.seed, (4, 4, 4))[None],
            num_inference_steps=SAMPLE.steps,
        ).images[0]
        difference = np.abs(np.asarray(image, dtype=int) - found.astype(int))
        assert difference.max() <= 2  # patches are stored as fp16
    image_prompt.detach()

    wanted = patches.score_params().evaluators.neutral
    neutral = load_evaluator(wanted, patches.folders, "score.evaluators.neutral")
    given = Inputs(*inputs[:1], patches.shards, patches.backbone, bases, model, row)
    assert draw(PARAMS, SAMPLE, given, neutral, workplace / "illustrations") > 0
    off = read(workplace / "illustrations/sweep/0.tar")
    base = Sampler(SAMPLE, *inputs, None)
    assert same(base.make(items(base)[:3], True), off)
