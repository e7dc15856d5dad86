"""Decoupled cross-attention (Ye et al. 2023) whose keys and values layers of one width share."""

from collections.abc import Sequence

from diffusers.models.attention_processor import Attention
from jaxtyping import Float
from torch import Tensor

from adapterbench.adapters.attention.decoupled import Decoupled
from adapterbench.adapters.core.branch import Layer, Prompt
from adapterbench.core.config import Section


class Params(Section):
    """Fields of a variant with `attention: shared`: none."""


def build(_params: Params, attn: Attention) -> "Shared":
    """The branch of a layer, which shares nothing yet."""
    return Shared(attn)


def link(branches: Sequence["Shared"]) -> None:
    """Let every branch use the weights of the first one of its widths."""
    owners: dict[tuple[int, ...], Shared] = {}
    for branch in branches:
        branch.use(owners.setdefault(tuple(branch.to_k.weight.shape), branch))


class Shared(Decoupled):
    """As `Decoupled`, with one `W'_K` and one `W'_V` for all layers of an inner width.

    They start as copies of those of the first such layer, and belong to its branch.
    """

    def __init__(self, attn: Attention) -> None:
        super().__init__(attn)
        self._owner: tuple[Shared, ...] = ()  # a tuple hides it from torch, so it is no child

    def use(self, owner: "Shared") -> None:
        """Use the weights of `owner` in place of those of this branch."""
        if owner is not self:
            del self.to_k, self.to_v
            self._owner = (owner,)

    def add_attention(
        self, attended: Float[Tensor, "batch positions inner"], layer: Layer, prompt: Prompt
    ) -> Float[Tensor, "batch positions inner"]:
        """See `Branch.add_attention`."""
        owner = self._owner[0] if self._owner else self
        key, value = owner.to_k(prompt.tokens), owner.to_v(prompt.tokens)
        return attended + self.factor * self.attend_images(
            layer.attn, layer.query, key, value, prompt
        )
