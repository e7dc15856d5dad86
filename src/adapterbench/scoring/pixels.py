"""Scores of images against references as functions of pixels: colours, and edges."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Shaped
from PIL import Image, ImageCms
from torch import Tensor
from torch.nn import functional as F

from adapterbench.formats.edges import edge_map
from adapterbench.formats.image import square, to_array


def colour_distance(
    images: Sequence[Image.Image], references: Sequence[Image.Image]
) -> Float64[Tensor, " images"]:
    """Distance between the colours of each image and of its reference, `(N,)`, in Delta E (1976).

    The pixels of each are described by their mean `m (3,)` and covariance `C (3, 3)` in CIELAB;
    the distance is that of Frechet between two Gaussians (Dowson and Landau 1982),
    `d^2 = |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2))`. Where a colour is in the image has no effect.

    Args:
        images: square ones of one size.
        references: one for each; scaled to that size.
    """
    m, c = moments(images)
    n, d = moments([square(reference, images[0].width) for reference in references])
    # the eigenvalues of a product of two covariances are real and not negative
    root = torch.linalg.eigvals(c @ d).real.clamp_min(0).sqrt().sum(dim=-1)
    spread = (c + d).diagonal(dim1=-2, dim2=-1).sum(dim=-1) - 2 * root
    squared = (m - n).square().sum(dim=-1) + spread
    return squared.clamp_min(0).sqrt()


def moments(
    images: Sequence[Image.Image],
) -> tuple[Float64[Tensor, "images 3"], Float64[Tensor, "images 3 3"]]:
    """Means `(N, 3)` and covariances `(N, 3, 3)` of each image's pixels in CIELAB."""
    pixels = [lab(image).T for image in images]
    means = torch.stack([values.mean(dim=1) for values in pixels])
    return means, torch.stack([torch.cov(values, correction=0) for values in pixels])


def lab(image: Image.Image) -> Float64[Tensor, "pixels 3"]:
    """The pixels of an image in CIELAB (white: D50), `(P, 3)`."""
    stored = np.asarray(ImageCms.applyTransform(image.convert("RGB"), to_lab()))
    # lightness is scaled to a byte, a and b are signed bytes
    lightness, opponents = stored[..., :1] * (100 / 255), stored[..., 1:].astype(np.int8)
    return torch.from_numpy(np.concatenate([lightness, opponents], axis=-1)).reshape(-1, 3)


@cache
def to_lab() -> ImageCms.ImageCmsTransform:
    """sRGB to CIELAB, by LittleCMS."""
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return ImageCms.buildTransform(srgb, lab, "RGB", "LAB")


def edge_f1_of(
    images: Sequence[Image.Image], references: Sequence[Image.Image]
) -> Float[Tensor, " images"]:
    """F1 of the edges of each image and of its reference, `(N,)`; see `edge_f1`.

    Args:
        images: square ones of one size.
        references: one for each; scaled to that size.
    """
    side = images[0].width
    drawn, expected = (
        torch.stack([torch.from_numpy(to_array(edge_map(image, side))) for image in group])
        for group in (images, references)
    )
    return edge_f1(drawn, expected)


def edge_f1(
    drawn: Shaped[Tensor, "images channels height width"],
    control: Shaped[Tensor, "images channels height width"],
) -> Float[Tensor, " images"]:
    """F1 `(N,)` of edge maps `(N, 3, H, W)`, with a tolerance of one pixel."""
    predicted, target = drawn[:, :1] > 0, control[:, :1] > 0
    precision, recall = share_near(predicted, target), share_near(target, predicted)
    return 2 * precision * recall / (precision + recall).clamp_min(1e-9)


def share_near(
    a: Bool[Tensor, "images 1 height width"], b: Bool[Tensor, "images 1 height width"]
) -> Float[Tensor, " images"]:
    """Share `(N,)` of the pixels in `a` with a pixel of `b` in their 3 x 3 neighbourhood."""
    near = F.max_pool2d(b.float(), 3, stride=1, padding=1) > 0
    count = a.sum(dim=(1, 2, 3))
    return (a & near).sum(dim=(1, 2, 3)) / count.clamp_min(1)
