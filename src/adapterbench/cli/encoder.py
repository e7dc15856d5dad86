"""The image encoder that goes with an adapter: what the user says, not what the adapter says."""

from pathlib import Path
from typing import TYPE_CHECKING

from adapterbench.core.config import PARAMS, EncodeParams, ImageEncoderParams, load_params
from adapterbench.core.errors import UserError

if TYPE_CHECKING:
    from adapterbench.adapters.core.adapter import Adapter


def beside(backbone: Path) -> ImageEncoderParams:
    """The backbone's own, if it has one."""
    from adapterbench.frozen.load import bundled_encoder  # seconds to import

    return ImageEncoderParams(image_encoder=bundled_encoder(backbone))


def of_stage_encode(backbone: Path) -> ImageEncoderParams:
    """That of the project in the working folder, if there is one, over a backbone."""
    if not PARAMS.is_file():
        return ImageEncoderParams()
    from adapterbench.frozen.load import clip_name

    params = load_params(EncodeParams, "encode")
    name = clip_name(params.image_encoder, backbone)
    return ImageEncoderParams(image_encoder=name, pretrained=params.pretrained)


def first(*encoders: ImageEncoderParams) -> ImageEncoderParams:
    """The first that is one.

    Raises:
        UserError: none is.
    """
    for encoder in encoders:
        if encoder.image_encoder is not None:
            return encoder
    raise UserError(
        "which image encoder was the adapter trained with? Name it with --image-encoder and "
        "--pretrained, such as ViT-B-32 and openai"
    )


def check_width(adapter: "Adapter", encoder: ImageEncoderParams) -> None:
    """Refuse an image encoder whose embeddings, or patches, are of another width.

    Raises:
        UserError: they are, or open_clip knows no such model.
    """
    from open_clip import CLIPVisionCfg  # seconds to import

    from adapterbench.frozen.load import clip_config

    config = clip_config(str(encoder.image_encoder))
    width = config["embed_dim"]
    if adapter.reads_patches:
        width = config["vision_cfg"].get("width", CLIPVisionCfg.width)
    if width != adapter.embed_dim:
        what = "patches" if adapter.reads_patches else "image embeddings"
        raise UserError(
            f"the adapter reads {what} of width {adapter.embed_dim}, those of {encoder} are "
            f"{width} wide: name the CLIP it was trained with, --image-encoder and --pretrained"
        )
