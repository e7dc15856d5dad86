"""Scores of images as functions of unit embeddings of any evaluator."""

import math

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from adapterbench.core.errors import UserError


def cosine(a: Float[Tensor, "rows dim"], b: Float[Tensor, "rows dim"]) -> Float64[Tensor, " rows"]:
    """Row-wise cosine `(N,)` of unit vectors `(N, D)`, in float64."""
    return (a.double() * b.double()).sum(dim=-1)


def finds(
    images: Float[Tensor, "images dim"],
    references: Float[Tensor, "references dim"],
    targets: Int64[Tensor, " images"],
    part: int = 1024,
) -> Float64[Tensor, " images"]:
    """R@1 of each image, `(M,)`: 1 if it is nearer to its target than to any other reference.

    A tie counts as 0.

    Args:
        images: unit vectors `(M, D)`.
        references: unit vectors `(N, D)`.
        targets: index of each image's target among the references, `(M,)`.
        part: images compared at a time; affects memory only.
    """
    hits = []
    for vectors, target in zip(images.split(part), targets.split(part), strict=True):
        similarity = vectors.double() @ references.double().T
        to_target = similarity.gather(1, target[:, None])
        to_others = similarity.scatter(1, target[:, None], -torch.inf)
        hits.append((to_target > to_others).all(dim=1))
    return torch.cat(hits).double()


def diversity(
    images: Float[Tensor, "images dim"], items: Int64[Tensor, " images"]
) -> Float64[Tensor, " images"]:
    """Mean cosine distance of each image to the other images of its item, `(M,)`.

    Averaged over an item's K images, this is the mean over its K (K - 1) / 2 pairs. NaN where an
    item has a single image.

    Args:
        images: unit vectors `(M, D)`.
        items: index of each image's item, `(M,)`.
    """
    vectors = images.double()
    sums = torch.zeros(int(items.max()) + 1, vectors.shape[1], dtype=vectors.dtype)
    sums.index_add_(0, items, vectors)
    others = items.bincount()[items] - 1
    # the sum over an item includes the image itself
    similarity = cosine(vectors, sums[items]) - cosine(vectors, vectors)
    return torch.where(others > 0, 1 - similarity / others, torch.nan)


def distribution(
    images: Float[Tensor, "images dim"],
    references: Float[Tensor, "references dim"],
    subset: int | None,
) -> dict[str, float]:
    """KID (Binkowski et al. 2018), precision and recall (Kynkaanniemi et al. 2019) of a set.

    KID is the mean over 100 subsets, with the usual cubic kernel on the unit vectors,
    `(x . y + 1)^3`; precision and recall use k = 3 nearest neighbours.

    Args:
        images: unit vectors `(M, D)` of the generated images.
        references: unit vectors `(N, D)` of the reference images.
        subset: size of one KID subset; None: the sets are too small, and all three are NaN.

    Raises:
        UserError: `subset` is larger than either set.
    """
    if subset is None:
        return dict.fromkeys(("kid", "precision", "recall"), math.nan)
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    if subset > min(len(images), len(references)):
        raise UserError(
            f"score.kid_subset_size = {subset}, but there are {len(images)} images and "
            f"{len(references)} references: lower it, raise sample.items or set it to null"
        )
    pair, quiet = (images.double(), references.double()), {"verbose": False}
    kid = kid_features_to_metric(*pair, kid_subset_size=subset, kid_kernel_poly_gamma=1.0, **quiet)
    prc = prc_features_to_metric(*pair, **quiet)
    return {"kid": kid[KEY_METRIC_KID_MEAN], "precision": prc["precision"], "recall": prc["recall"]}
