"""IP-Adapter's decoupled cross-attention (Ye et al. 2023, equation 5)."""

from diffusers.models.attention_processor import Attention
from jaxtyping import Float
from torch import Tensor

from adapterbench.adapters.core.branch import DecoupledBranch, Layer, Prompt, copy_of
from adapterbench.core.config import Section


class Params(Section):
    """Fields of a variant with `attention: decoupled`: none."""


def build(_params: Params, attn: Attention) -> DecoupledBranch:
    """The branch of a layer."""
    return Decoupled(attn)


class Decoupled(DecoupledBranch):
    """`Z_new = W_O (Attn(Q, K, V) + lambda Attn(Q, K', V'))`, `K' = y W'_K`, `V' = y W'_V`.

    `y (B, M, D)` are the image tokens; the new `W'_K, W'_V` start as copies of `W_K, W_V`.
    """

    def __init__(self, attn: Attention) -> None:
        super().__init__()
        self.to_k = copy_of(attn.to_k)
        self.to_v = copy_of(attn.to_v)

    def add_attention(
        self, attended: Float[Tensor, "batch positions inner"], layer: Layer, prompt: Prompt
    ) -> Float[Tensor, "batch positions inner"]:
        """See `Branch.add_attention`."""
        key, value = self.to_k(prompt.tokens), self.to_v(prompt.tokens)
        return attended + self.factor * self.attend_images(
            layer.attn, layer.query, key, value, prompt
        )
