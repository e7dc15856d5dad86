"""The image encoder of an adapter, from options, the backbone or the project's parameters."""

from pathlib import Path
from typing import TYPE_CHECKING

from adapterbench.core.config import PARAMS, EncodeParams, ImageEncoderParams, load_params
from adapterbench.core.errors import UserError

if TYPE_CHECKING:
    from adapterbench.adapters.core.adapter import Adapter


def of_backbone(backbone: Path) -> ImageEncoderParams:
    """The image encoder in the backbone's folder, if there is one."""
    from adapterbench.frozen.load import bundled_encoder  # slow import

    return ImageEncoderParams(image_encoder=bundled_encoder(backbone))


def of_stage_encode(backbone: Path) -> ImageEncoderParams:
    """`encode.image_encoder` of the project in the working folder, if there is a project."""
    if not PARAMS.is_file():
        return ImageEncoderParams()
    from adapterbench.frozen.load import clip_name

    params = load_params(EncodeParams, "encode")
    name = clip_name(params.image_encoder, backbone)
    return ImageEncoderParams(image_encoder=name, pretrained=params.pretrained)


def first(*encoders: ImageEncoderParams) -> ImageEncoderParams:
    """The first of `encoders` with a name.

    Raises:
        UserError: none has.
    """
    for encoder in encoders:
        if encoder.image_encoder is not None:
            return encoder
    raise UserError(
        "which image encoder was the adapter trained with? Name it with --image-encoder and "
        "--pretrained, such as ViT-B-32 and openai"
    )


def check_width(adapter: "Adapter", encoder: ImageEncoderParams) -> None:
    """Check that the width of the encoder's embeddings (or patches) is what the adapter reads.

    Raises:
        UserError: it is not, or open_clip knows no such model.
    """
    from open_clip import CLIPVisionCfg  # slow import

    from adapterbench.frozen.load import clip_config

    config = clip_config(str(encoder.image_encoder))
    width = config["embed_dim"]
    if adapter.reads_patches:
        width = config["vision_cfg"].get("width", CLIPVisionCfg.width)
    if width != adapter.embed_dim:
        features = "patches" if adapter.reads_patches else "image embeddings"
        raise UserError(
            f"the adapter reads {features} of width {adapter.embed_dim}, those of {encoder} have "
            f"width {width}: name its image encoder with --image-encoder and --pretrained"
        )
