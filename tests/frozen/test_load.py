"""Frozen models load as they were saved, or with one line that says what is wrong."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import open_clip
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from toy_backbone import HELD_OUT, Toy, toy_samples
from transformers import CLIPTextModel

from adapterbench.core.errors import UserError
from adapterbench.frozen.load import bundled_encoder, clip_name, fingerprint, load_clip, load_part
from adapterbench.frozen.trial import TRIALS, check_usable

if TYPE_CHECKING:
    from toy_xl import ToyXL

WEIGHTS = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}
CLASSES = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}


@pytest.fixture
def backbone(toy: Toy, tmp_path: Path) -> Path:
    """A copy that the test may damage."""
    shutil.copytree(toy.backbone, tmp_path / "backbone")
    return tmp_path / "backbone"


def edit_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


@pytest.mark.parametrize("part", CLASSES)
def test_networks_are_frozen_in_fp32_and_in_evaluation_mode(toy: Toy, part: str) -> None:
    loaded = load_part(toy.backbone, part)
    assert isinstance(loaded, CLASSES[part])
    assert not loaded.training
    assert {weight.dtype for weight in loaded.parameters()} == {torch.float32}
    assert not any(weight.requires_grad for weight in loaded.parameters())


@pytest.mark.parametrize("part", WEIGHTS)
@pytest.mark.parametrize("damage", ["cut", "empty", "git-lfs", "missing", "config", "no folder"])
def test_a_damaged_part_is_one_line(backbone: Path, part: str, damage: str) -> None:
    weights, config = backbone / part / WEIGHTS[part], backbone / part / "config.json"
    match damage:
        case "cut":
            weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
        case "empty":
            weights.write_bytes(b"")
        case "git-lfs":
            weights.write_text("version https://git-lfs.github.com/spec/v1")
        case "missing":
            weights.unlink()
        case "config":
            config.write_text("{")
        case "no folder":
            shutil.rmtree(backbone / part)
    with pytest.raises(UserError, match="make it again") as caught:
        load_part(backbone, part)
    assert str(backbone / part) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_weights_of_another_size_are_one_line(backbone: Path, part: str) -> None:
    changes = {"unet": {"cross_attention_dim": 48}, "text_encoder": {"hidden_size": 48}}
    edit_json(backbone / part / "config.json", lambda config: config.update(changes[part]))
    with pytest.raises(UserError, match=f"cannot load .*{part}"):
        load_part(backbone, part)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("scheduler", {"prediction_type": "wish"}, "wish"),
        ("scheduler", {"num_train_timesteps": 0}, ""),
        ("scheduler", {"beta_schedule": "steep"}, "steep"),
        ("scheduler", {"beta_end": "high"}, ""),
        ("vae", {"scaling_factor": 0}, "division by zero"),
        ("vae", {"scaling_factor": "small"}, ""),
        ("vae", {"act_fn": "none"}, ""),
        ("unet", {"norm_eps": "small"}, ""),
        ("text_encoder", {"hidden_act": "none"}, ""),
        ("tokenizer", {"model_max_length": 10**30}, "model_max_length is 1000"),
        ("tokenizer", {"model_max_length": -5}, "model_max_length is -5"),
    ],
)
def test_a_part_that_loads_and_does_not_work_is_one_line(
    backbone: Path, part: str, change: dict[str, Any], message: str
) -> None:
    name = {"scheduler": "scheduler_config", "tokenizer": "tokenizer_config"}.get(part, "config")
    edit_json(backbone / part / f"{name}.json", lambda config: config.update(change))
    with pytest.raises(
        UserError, match=f"cannot load .*{part} .*{message}.*make it again"
    ) as caught:
        load_part(backbone, part)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("unet", {"addition_time_embed_dim": 100}, "negative"),
        ("unet", {"projection_class_embeddings_input_dim": 12}, ""),
        ("text_encoder_2", {"hidden_act": "none"}, ""),
        ("text_encoder_2", {"projection_dim": 7}, ""),
    ],
)
def test_a_part_of_sdxl_that_does_not_work_is_one_line(
    xl: "ToyXL", tmp_path: Path, part: str, change: dict[str, Any], message: str
) -> None:
    shutil.copytree(xl.backbone, tmp_path / "backbone")
    edit_json(tmp_path / "backbone" / part / "config.json", lambda config: config.update(change))
    with pytest.raises(UserError, match=f"cannot load .*{part} .*{message}") as caught:
        load_part(tmp_path / "backbone", part)
    assert "\n" not in str(caught.value)


def test_a_second_text_encoder_without_a_projection_is_one_line(
    xl: "ToyXL", tmp_path: Path
) -> None:
    folder = tmp_path / "backbone"
    shutil.copytree(xl.backbone, folder)
    shutil.copytree(folder / "text_encoder", folder / "text_encoder_2", dirs_exist_ok=True)
    name = ["transformers", "CLIPTextModel"]
    edit_json(folder / "model_index.json", lambda index: index.update(text_encoder_2=name))
    with pytest.raises(UserError, match=r"cannot load .*text_encoder_2.*text_embeds"):
        load_part(folder, "text_encoder_2")


@pytest.mark.parametrize("part", WEIGHTS)
def test_a_network_that_gives_no_numbers_is_one_line(backbone: Path, part: str) -> None:
    path = backbone / part / WEIGHTS[part]
    save_file({name: w * torch.nan for name, w in load_file(path).items()}, path, {"format": "pt"})
    with pytest.raises(UserError, match="its output is not finite"):
        load_part(backbone, part)


@pytest.mark.parametrize(
    "change",
    [
        {"preprocess_cfg": {"mean": [0.5] * 4, "std": [0.5] * 4}},
        {"preprocess_cfg": {"mean": [0.5, 0.5, [1]], "std": [0.5] * 3}},
        {"preprocess_cfg": {"mean": [0.5] * 3, "std": [0.0] * 3}},
    ],
)
def test_a_clip_that_loads_and_does_not_work_is_one_line(
    backbone: Path, change: dict[str, Any]
) -> None:
    folder = backbone / "image_encoder"
    edit_json(folder / "open_clip_config.json", lambda config: config.update(change))
    with pytest.raises(UserError, match="cannot load the CLIP") as caught:
        load_clip(f"local-dir:{folder}", None)
    assert "\n" not in str(caught.value)


def test_trying_a_part_draws_nothing(xl: "ToyXL") -> None:
    parts = {part: load_part(xl.backbone, part) for part in TRIALS}
    before = torch.get_rng_state()
    for part, loaded in parts.items():
        check_usable(part, loaded)
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_are_never_read_from_a_pickle(backbone: Path) -> None:
    weights = backbone / "unet" / WEIGHTS["unet"]
    torch.save({"a": torch.zeros(1)}, backbone / "unet" / "diffusion_pytorch_model.bin")
    weights.unlink()
    with pytest.raises(UserError, match="safetensors"):
        load_part(backbone, "unet")


@pytest.mark.parametrize("part", ["tokenizer", "scheduler"])
def test_a_missing_folder_is_one_line(backbone: Path, part: str) -> None:
    shutil.rmtree(backbone / part)
    with pytest.raises(UserError, match=f"{part} is missing: make it again"):
        load_part(backbone, part)


@pytest.mark.parametrize(
    "named",
    [
        ["diffusers", "NoSuchModel"],
        ["diffusers", "AutoModel"],  # takes code from beside the weights
        ["diffusers", "AutoencoderKL"],
        ["diffusers", "logging"],
        ["transformers", "UNet2DConditionModel"],
        ["their_own_code", "UNet"],
        [None, None],
        ["diffusers"],
        {"diffusers": "UNet2DConditionModel"},
        "UNet2DConditionModel",
        None,
    ],
)
def test_an_unknown_class_is_one_line(backbone: Path, named: Any) -> None:
    edit_json(backbone / "model_index.json", lambda index: index.update(unet=named))
    with pytest.raises(UserError, match="not supported") as caught:
        load_part(backbone, "unet")
    assert json.dumps(named) in str(caught.value)


@pytest.mark.parametrize("index", ["[]", "null", '"unet"', "{", "[" * 100_000])
def test_an_index_of_another_structure_is_one_line(backbone: Path, index: str) -> None:
    (backbone / "model_index.json").write_text(index)
    with pytest.raises(UserError, match=r"model_index\.json is not the index") as caught:
        load_part(backbone, "unet")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["tokenizer", "text_encoder"])
def test_a_class_that_may_load_code_is_no_part(backbone: Path, part: str, tmp_path: Path) -> None:
    ran = plant(backbone / part, tmp_path)
    auto = {"tokenizer": "AutoTokenizer", "text_encoder": "AutoModel"}[part]
    edit_json(
        backbone / "model_index.json", lambda index: index.update({part: ["transformers", auto]})
    )
    with pytest.raises(UserError, match="not supported"):
        load_part(backbone, part)
    assert not ran.exists()


@pytest.mark.parametrize("part", WEIGHTS)
def test_a_weight_that_lacks_is_not_drawn(backbone: Path, part: str) -> None:
    path = backbone / part / WEIGHTS[part]
    weights = load_file(path)
    name = sorted(weights)[0]
    save_file({k: w for k, w in weights.items() if k != name}, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match="1 weights are missing, such as") as caught:
        load_part(backbone, part)
    assert name in str(caught.value)


def test_what_is_not_a_pipeline_is_one_line(backbone: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no prior: is it a Stable Diffusion"):
        load_part(backbone, "prior")
    with pytest.raises(UserError, match=r"model_index\.json is missing"):
        load_part(tmp_path / "absent", "unet")


def test_the_fingerprint_follows_names_and_contents(backbone: Path, toy: Toy) -> None:
    seen = [fingerprint(backbone)]
    assert seen[0] == fingerprint(toy.backbone)
    weights = backbone / "vae" / WEIGHTS["vae"]
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    seen.append(fingerprint(backbone))
    moved = weights.rename(weights.with_name("other.safetensors"))
    seen.append(fingerprint(backbone))
    assert len(set(seen)) == 3
    moved.write_bytes(data)
    moved.rename(weights)
    assert fingerprint(backbone) == seen[0]


CODE = """
from pathlib import Path
from transformers import CLIPTokenizer, CLIPTextModel
Path({ran!r}).touch()
class Theirs(CLIPTokenizer): pass
class TheirsToo(CLIPTextModel): pass
"""


def plant(folder: Path, tmp_path: Path) -> Path:
    """Code beside a model, and what asks transformers to run it; the file that it makes then."""
    ran = tmp_path / "ran"
    (folder / "theirs.py").write_text(CODE.format(ran=str(ran)))
    own = {"auto_map": {"AutoTokenizer": ["theirs.Theirs", None]}, "tokenizer_class": "Theirs"}
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | own))
    auto = {name: f"theirs.{kind}" for name, kind in AUTO.items()}
    path = folder / "config.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | {"model_type": "theirs", "auto_map": auto}))
    return ran


AUTO = {"AutoConfig": "Theirs", "AutoModel": "TheirsToo"}


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"tokenizer_kwargs": {"trust_remote_code": True}}, "remote code"),
        ({"tokenizer_kwargs": {"trust_remote_code": 1, "use_fast": False}}, "remote code"),
        ({"tokenizer_kwargs": {"deeper": [{"trust_remote_code": "yes"}]}}, "remote code"),
        ({"tokenizer_kwargs": {"auto_map": {}}}, "remote code"),
        ({}, "custom code"),  # the tokenizer's own configuration asks
        ({"hf_model_name": "HERE"}, "remote code|custom code"),  # so does that of a text tower
    ],
)
def test_a_clip_that_asks_for_code_is_refused(
    backbone: Path, change: dict[str, Any], cause: str, tmp_path: Path
) -> None:
    folder = backbone / "evaluator"
    ran = plant(folder, tmp_path)
    change = json.loads(json.dumps(change).replace("HERE", str(folder)))
    edit_json(
        folder / "open_clip_config.json",
        lambda config: config["model_cfg"]["text_cfg"].update(change),
    )
    with pytest.raises(UserError, match=cause) as caught:
        load_clip(f"local-dir:{folder}", None)
    assert "\n" not in str(caught.value)
    assert not ran.exists()


def test_nobody_is_asked_whether_to_run_code(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = backbone / "evaluator"
    ran = plant(folder, tmp_path)
    monkeypatch.setattr("builtins.input", lambda _: "y")
    for change in ({}, {"hf_model_name": str(folder)}):

        def edit(config: dict[str, Any], change: dict[str, str] = change) -> None:
            config["model_cfg"]["text_cfg"].update(change)

        edit_json(folder / "open_clip_config.json", edit)
        with pytest.raises(UserError):
            load_clip(f"local-dir:{folder}", None)
    assert not ran.exists()


@pytest.mark.parametrize("text", ["[]", "null", "{}", '{"model_cfg": []}', '{"model_cfg": {}}'])
def test_a_clip_configuration_of_another_structure_is_one_line(backbone: Path, text: str) -> None:
    (backbone / "evaluator/open_clip_config.json").write_text(text)
    with pytest.raises(UserError, match="cannot load the CLIP") as caught:
        load_clip(f"local-dir:{backbone / 'evaluator'}", None)
    assert "\n" not in str(caught.value)


def test_a_clip_is_never_read_from_a_pickle(backbone: Path) -> None:
    folder = backbone / "evaluator"
    weights = folder / "open_clip_model.safetensors"
    torch.save(load_file(weights), folder / "open_clip_pytorch_model.bin")
    load_clip(f"local-dir:{folder}", None)  # both are there
    for name in ("other.safetensors", "gone"):  # open_clip would take the pickle
        weights = weights.rename(folder / name)
        with pytest.raises(UserError, match="pickles are never read"):
            load_clip(f"local-dir:{folder}", None)


def test_a_clip_is_open_clips(toy: Toy) -> None:
    clip = load_clip(toy.evaluator, None)
    model, _, preprocess = open_clip.create_model_and_transforms(toy.evaluator)
    model.eval()
    samples = [s for s in toy_samples() if s.meta["concept"] in HELD_OUT]
    texts = ["a ring", "", "unseen ✨ words"]
    tokens = open_clip.get_tokenizer(toy.evaluator)(texts)
    with torch.no_grad():
        images = model.encode_image(torch.stack([preprocess(s.image) for s in samples]))
        words = model.encode_text(tokens)
    torch.testing.assert_close(clip.image_embeds([s.image for s in samples]), images)
    torch.testing.assert_close(clip.text_embeds(texts), words)
    assert clip.embed_dim == 24
    assert not clip.model.training
    assert not any(weight.requires_grad for weight in clip.model.parameters())


@pytest.mark.parametrize(
    ("name", "pretrained"),
    [
        ("ViT-Nope", None),
        ("ViT-B-32", "nope"),
        ("ViT-S-32-alt", None),  # open_clip itself would go on with random weights
        ("local-dir:/nowhere", None),
    ],
)
def test_an_unknown_clip_is_one_line(name: str, pretrained: str | None) -> None:
    with pytest.raises(UserError, match=f"cannot load the CLIP '{name}'") as caught:
        load_clip(name, pretrained)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["no weights", "cut", "no configuration"])
def test_a_damaged_clip_is_one_line(backbone: Path, damage: str) -> None:
    weights = backbone / "evaluator" / "open_clip_model.safetensors"
    match damage:
        case "no weights":
            weights.unlink()
        case "cut":
            weights.write_bytes(weights.read_bytes()[:1000])
        case "no configuration":
            (backbone / "evaluator" / "open_clip_config.json").unlink()
    with pytest.raises(UserError, match="cannot load the CLIP"):
        load_clip(f"local-dir:{backbone / 'evaluator'}", None)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("backbone:image_encoder", "local-dir:models/sd/image_encoder"),
        ("backbone:clips/a", "local-dir:models/sd/clips/a"),
        ("local-dir:image_encoder", "local-dir:image_encoder"),
        ("ViT-B-32", "ViT-B-32"),
    ],
)
def test_a_clip_of_the_backbone_is_named_relative_to_it(name: str, expected: str) -> None:
    assert clip_name(name, Path("models/sd")) == expected


def test_the_image_encoder_that_a_backbone_brings(backbone: Path, tmp_path: Path) -> None:
    assert bundled_encoder(backbone) == f"local-dir:{backbone / 'image_encoder'}"
    assert bundled_encoder(tmp_path) is None
