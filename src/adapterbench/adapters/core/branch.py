"""What one cross-attention layer does with the image tokens: the contract, and what is shared.

Dimensions: B batch, N image positions, L text tokens, M image tokens (prompts x K),
D width of tokens, C width of features (`attn.query_dim`).
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn import functional as F

BaseProcessor = Callable[..., Tensor]
"""A diffusers attention processor, called `(attn, hidden_states, text, attention_mask)`."""


class Branch(nn.Module, ABC):
    """The image side of one layer; its parameters are all that this layer trains."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = 1.0
        """lambda, the weight of the image prompt in this layer."""

    def bind(self, attn: Attention) -> None:
        """Use the frozen weights of `attn`; called whenever the adapter is attached."""

    def keep_weights(self) -> None:
        """Copy the frozen weights in use, so that what changes the layer's leaves them as they are.

        Until the next `bind`.
        """

    @abstractmethod
    def forward(
        self,
        attn: Attention,
        base: BaseProcessor,
        hidden_states: Tensor,
        text: Tensor,
        tokens: Tensor,
        attention_mask: Tensor | None,
    ) -> Tensor:
        """The layer's output `Z_new`.

        Args:
            attn: the frozen layer.
            base: the processor that it had before, which knows nothing of images.
            hidden_states: `Z`, `(B, N, C)` or `(B, C, H, W)`.
            text: text tokens `(B, L, D)`.
            tokens: image tokens `(B, M, D)`.
            attention_mask: added to the scores of the text tokens, `(B, 1, L)`.

        Returns:
            The shape of `hidden_states`.
        """


class DecoupledBranch(Branch):
    """Image tokens have an attention of their own, added to that of the text with weight lambda.

    With lambda = 0 the base processor alone runs: the output is the base model's to the last bit.
    """

    def forward(
        self,
        attn: Attention,
        base: BaseProcessor,
        hidden_states: Tensor,
        text: Tensor,
        tokens: Tensor,
        attention_mask: Tensor | None,
    ) -> Tensor:
        """See `Branch.forward`."""
        if self.scale == 0:
            return base(attn, hidden_states, text, attention_mask)
        features = as_sequence(attn, hidden_states)
        if attn.norm_cross is not None:
            text = attn.norm_encoder_hidden_states(text)
        query = attn.to_q(features)
        mask = head_mask(attn, attention_mask, text)
        attended = attend(attn, query, attn.to_k(text), attn.to_v(text), mask)
        out = self.combine(attn, features, query, attended, tokens)
        return as_input(attn, attn.to_out[1](out), hidden_states)

    @abstractmethod
    def combine(
        self, attn: Attention, features: Tensor, query: Tensor, attended: Tensor, tokens: Tensor
    ) -> Tensor:
        """Add the image attention and apply `W_O`.

        Args:
            attn: the frozen layer.
            features: normed `Z (B, N, C)`.
            query: `Q = Z W_Q (B, N, inner_dim)`.
            attended: `Attn(Q, K, V)` over the text `(B, N, inner_dim)`, before `W_O`.
            tokens: image tokens `(B, M, D)`.

        Returns:
            `(B, N, C)`.
        """


def attend(
    attn: Attention, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> Tensor:
    """`softmax(Q K^T / sqrt(d)) V` for each head: `(B, N, inner_dim)`, in the dtype of `query`."""

    def heads(x: Tensor) -> Tensor:  # (B, heads, length, d)
        return x.to(query.dtype).unflatten(-1, (attn.heads, -1)).transpose(1, 2)

    out = F.scaled_dot_product_attention(heads(query), heads(key), heads(value), attn_mask=mask)
    return out.transpose(1, 2).flatten(2).to(query.dtype)


def head_mask(attn: Attention, mask: Tensor | None, text: Tensor) -> Tensor | None:
    """The additive mask `(B, 1, L)` for each head `(B, heads, 1, L)`, as diffusers prepares it."""
    if mask is None:
        return None
    batch, length, _ = text.shape
    mask = attn.prepare_attention_mask(mask, length, batch)
    return mask.view(batch, attn.heads, -1, mask.shape[-1])


def as_sequence(attn: Attention, hidden_states: Tensor) -> Tensor:
    """Normed features `(B, N, C)` of a layer's input, as diffusers' `AttnProcessor2_0` has them."""
    if hidden_states.ndim == 4:
        hidden_states = hidden_states.flatten(2).transpose(1, 2)
    if attn.group_norm is not None:
        hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
    return hidden_states


def as_input(attn: Attention, out: Tensor, hidden_states: Tensor) -> Tensor:
    """Give `out (B, N, C)` the shape of the layer's input, its residual and its rescaling."""
    if hidden_states.ndim == 4:
        out = out.transpose(1, 2).reshape(hidden_states.shape)
    if attn.residual_connection:
        out = out + hidden_states
    return out / attn.rescale_output_factor


def copy_of(layer: nn.Linear) -> nn.Linear:
    """A trainable fp32 copy of a frozen layer's weight, without bias; draws no random number."""
    copy = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    copy.weight = nn.Parameter(layer.weight.detach().to(torch.float32, copy=True))
    return copy


class FrozenLinear(nn.Linear):
    """`x W^T` with the weight of a frozen layer: read at each call, never owned, no bias.

    It has no parameter of its own, so the shared weight is neither trained nor saved with an
    adapter, and exists once in memory (but for `keep`).
    """

    def __init__(self, layer: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.register_parameter("bias", None)
        self.share(layer)

    def share(self, layer: nn.Linear) -> None:
        """Read the weight of `layer` from now on."""
        self._layer = (layer,)  # in a tuple, torch does not take it for a child
        self.register_buffer("_kept", None, persistent=False)

    def keep(self) -> None:
        """Read a copy of the weight from now on, without what PEFT has merged into it."""
        self._kept = unmerged(self._layer[0]).weight.detach().clone()

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The frozen weight `(out_features, in_features)`."""
        return self._layer[0].weight if self._kept is None else self._kept

    def forward(self, input: Tensor) -> Tensor:
        """`(.., in_features)` to `(.., out_features)`, in the dtype of the weight."""
        return F.linear(input.to(self.weight.dtype), self.weight)


def unmerged(layer: nn.Linear) -> nn.Linear:
    """The layer as it is without the LoRA, or another of PEFT's tuners, merged into its weight."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    if not (isinstance(layer, BaseTunerLayer) and layer.merged):
        return layer
    copied: Any = copy.deepcopy(layer)
    copied.unmerge()
    return copied
