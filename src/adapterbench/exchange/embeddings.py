"""Image embeddings: weighted means, noise, and files."""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from adapterbench.adapters.core.adapter import finite
from adapterbench.core.errors import UserError, one_line
from adapterbench.core.files import publish

NAME = "image_embeds"
"""Name of the only tensor in a file."""


def mean(embeds: Tensor, weights: Sequence[float] | None) -> Tensor:
    """The weighted mean of n image prompts `(n, ..)`, as one `(1, ..)`.

    Raises:
        UserError: there is not one weight each, one is negative, or their sum is 0.
    """
    numbers = [1.0] * len(embeds) if weights is None else [finite(w, "weights") for w in weights]
    if len(numbers) != len(embeds) or min(numbers) < 0 or not sum(numbers) > 0:
        raise UserError(
            f"weights = {weights!r} for {len(embeds)} image(s): give each a number, none below 0, "
            "one above"
        )
    shares = torch.tensor(numbers, dtype=torch.float64) / sum(numbers)
    return torch.tensordot(shares.to(embeds), embeds, dims=1)[None]


def noised(embeds: Tensor, noise: float, seed: int) -> Tensor:
    """`sqrt(1 - s^2) c + s r e`: a share s of noise in each image prompt `(n, ..)`, norm kept.

    Args:
        embeds: c.
        noise: s, from 0 (none) to 1 (nothing else).
        seed: of e, which is normal; the same on every device. r is the root mean square of c.

    Raises:
        UserError: `noise` is not in [0, 1], or `seed` is not an integer.
    """
    share = finite(noise, "noise")
    if not 0 <= share <= 1:
        raise UserError(f"noise = {noise!r}: give a share from 0 to 1")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise UserError(f"noise_seed = {seed!r}: give a whole number")
    if share == 0:
        return embeds
    generator = torch.Generator().manual_seed(seed % 2**63)
    drawn = torch.randn(embeds.shape, generator=generator).to(embeds)
    size = embeds.square().mean(dim=tuple(range(1, embeds.ndim)), keepdim=True).sqrt()
    return (1 - share**2) ** 0.5 * embeds + share * size * drawn


def save_embeddings(embeds: Tensor, path: Path | str) -> None:
    """Write image embeddings, as `ImagePrompt.encode` makes them, to a `.safetensors` file.

    Raises:
        UserError: they are not a tensor of floats, or the name has another extension.
    """
    if Path(path).suffix != ".safetensors":
        raise UserError(f"{path}: name a file that ends in .safetensors")
    if not (isinstance(embeds, Tensor) and embeds.is_floating_point()):
        raise UserError("image embeddings are a tensor of floats: take image_prompt.encode(image)")
    with publish(Path(path)) as beside:
        save_file({NAME: embeds.detach().cpu().contiguous()}, beside, metadata={"format": "pt"})


def load_embeddings(path: Path | str) -> Tensor:
    """Read embeddings that `save_embeddings` wrote, to use in place of images.

    Raises:
        UserError: the file is missing, damaged or holds something else.
    """
    try:
        tensors = load_file(path)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: check the path") from error
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{path} is damaged ({one_line(error)}): save it again") from error
    if tensors.keys() != {NAME} or not tensors[NAME].is_floating_point():
        raise UserError(f"{path} holds no image embeddings: write it with save_embeddings")
    return tensors[NAME]
