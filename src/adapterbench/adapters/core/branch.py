"""Image branches of cross-attention layers: the interface, and functions that they share.

Dimensions: B batch, N image positions, L text tokens, n image prompts, M image tokens (n K),
D width of tokens, C width of features (`attn.query_dim`).
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from diffusers.models.attention_processor import Attention
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from adapterbench.adapters.core.masks import regions

BaseProcessor = Callable[..., Tensor]
"""A diffusers attention processor, called `(attn, hidden_states, text, attention_mask)`."""


@runtime_checkable
class LinearLayer(Protocol):
    """A linear layer of a UNet: PyTorch's own, or one that PEFT has put around it."""

    in_features: int
    out_features: int

    @property
    def weight(self) -> Tensor:
        """`(out_features, in_features)`."""


@dataclass(frozen=True)
class Layer:
    """Intermediate results of a layer, for its branches."""

    attn: Attention
    """The frozen layer."""
    features: Float[Tensor, "batch positions channels"]
    """Normed `Z (B, N, C)`."""
    query: Float[Tensor, "batch positions inner"]
    """`Q = Z W_Q (B, N, inner_dim)`."""


@dataclass(frozen=True)
class Prompt:
    """The image prompts of one adapter."""

    tokens: Float[Tensor, "batch tokens dim"]
    """Image tokens `(B, M, D)`."""
    masks: Float[Tensor, "1 prompts height width"] | None = None
    """Regions in which each of the n prompts acts, `(1, n, H, W)`; None: everywhere."""

    def regions(self, positions: int) -> Float[Tensor, "prompts {positions}"] | None:
        """The masks at the N positions of a layer, `(n, N)`."""
        if self.masks is None:
            return None
        return regions(self.masks, positions).to(self.tokens.device)  # masks are made on the CPU


class Branch(nn.Module):
    """Image branch of one cross-attention layer; its parameters are all that this layer trains.

    A layer is `W_O Attn(Z W_Q, y W_K, y W_V)`. A branch overrides one or more of three
    methods, which change nothing by default: the text tokens `y`, the attention, the output.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scale: float | list[float] = 1.0
        """lambda, the weight of the image prompt in this layer; a list has one for each prompt."""
        self.step_weight = 1.0
        """Factor of lambda in the current step of sampling."""
        self.prompt_weights: list[float] | None = None
        """Weights of the prompts in a shared attention; None: 1 each."""

    @property
    def factor(self) -> float:
        """Factor of the attention over all prompts."""
        return self.step_weight * (1.0 if isinstance(self.scale, list) else self.scale)

    @property
    def attends(self) -> bool:
        """Whether it changes more than the text tokens, so the base processor does not suffice."""
        return False

    def bind(self, attn: Attention) -> None:
        """Use the frozen weights of `attn`; called whenever the adapter is attached."""

    def keep_weights(self) -> None:
        """Copy the frozen weights in use, until the next `bind`.

        Later changes of the layer's weights then have no effect on the branch.
        """

    def extend(
        self,
        text: Float[Tensor, "batch text dim"],
        attention_mask: Float[Tensor, "batch rows text"] | None,
        prompt: Prompt,  # noqa: ARG002
        positions: int,  # noqa: ARG002
    ) -> tuple[Float[Tensor, "batch extended dim"], Float[Tensor, "batch queries extended"] | None]:
        """The tokens that the layer attends to, and the additive mask of their scores.

        Args:
            text: text tokens `(B, L, D)`.
            attention_mask: `(B, 1, L)` or `(B, N, L)`.
            prompt: the image prompts of this adapter.
            positions: N.
        """
        return text, attention_mask

    def add_attention(
        self,
        attended: Float[Tensor, "batch positions inner"],
        layer: Layer,  # noqa: ARG002
        prompt: Prompt,  # noqa: ARG002
    ) -> Float[Tensor, "batch positions inner"]:
        """The attention before `W_O`, `(B, N, inner_dim)`."""
        return attended

    def add_output(
        self,
        out: Float[Tensor, "batch positions channels"],
        layer: Layer,  # noqa: ARG002
        prompt: Prompt,  # noqa: ARG002
    ) -> Float[Tensor, "batch positions channels"]:
        """The output after `W_O`, `(B, N, C)`."""
        return out


class DecoupledBranch(Branch):
    """A separate attention over image tokens, added to that over the text with weight lambda.

    With lambda = 0 only the base processor runs: the output equals that of the base model exactly.
    """

    @property
    def attends(self) -> bool:
        """See `Branch.attends`."""
        scales = self.scale if isinstance(self.scale, list) else [self.scale]
        return self.step_weight != 0 and any(scale != 0 for scale in scales)

    def attend_images(
        self,
        attn: Attention,
        query: Float[Tensor, "batch positions inner"],
        key: Float[Tensor, "batch tokens inner"],
        value: Float[Tensor, "batch tokens inner"],
        prompt: Prompt,
    ) -> Float[Tensor, "batch positions inner"]:
        """`Attn(Q, K', V') (B, N, inner_dim)` over image tokens, to be multiplied by `factor`.

        Without masks all prompts share one attention. With masks each has its own, weighted
        by its mask, and by its lambda if there are several: diffusers' `ip_adapter_masks`.

        Args:
            attn: the frozen layer.
            query: `(B, N, inner_dim)`.
            key: `(B, M, inner_dim)`.
            value: `(B, M, inner_dim)`.
            prompt: the image prompts of these tokens.
        """
        weights = prompt.regions(query.shape[1])
        if weights is None:
            return attend(attn, query, key, value, self.shared_scores(key))
        if isinstance(self.scale, list):
            weights = weights * weights.new_tensor(self.scale)[:, None]
        parts = zip(*(x.chunk(len(weights), dim=1) for x in (key, value)), strict=True)
        images = [attend(attn, query, *part) for part in parts]
        weighted = zip(weights.to(query.dtype), images, strict=True)
        return torch.stack([weight[:, None] * image for weight, image in weighted]).sum(dim=0)

    def shared_scores(
        self, tokens: Float[Tensor, "batch tokens inner"]
    ) -> Float[Tensor, "1 tokens"] | None:
        """Added to the scores of image tokens `(B, M, ..)` for the prompt weights, `(1, M)`."""
        if self.prompt_weights is None:
            return None
        return added_scores(tokens.new_tensor(self.prompt_weights)[:, None], tokens.shape[1])


def run_layer(
    attn: Attention,
    base: BaseProcessor,
    hidden_states: Float[Tensor, " batch *features"],
    text: Float[Tensor, "batch text dim"],
    attention_mask: Float[Tensor, "batch rows text"] | None,
    branches: Sequence[tuple[Branch, Prompt]],
) -> Float[Tensor, " batch *features"]:
    """The layer's output `Z_new`, in the shape of `hidden_states`.

    Args:
        attn: the frozen layer.
        base: the processor that it had before, without image prompts.
        hidden_states: `Z`, `(B, N, C)` or `(B, C, H, W)`.
        text: text tokens `(B, L, D)`.
        attention_mask: added to the scores of the text tokens, `(B, 1, L)`.
        branches: those of all adapters, each with its image prompts.
    """
    positions = (
        math.prod(hidden_states.shape[2:]) if hidden_states.ndim == 4 else hidden_states.shape[1]
    )
    for branch, prompt in branches:
        text, attention_mask = branch.extend(text, attention_mask, prompt, positions)
    attending = [(branch, prompt) for branch, prompt in branches if branch.attends]
    if not attending:
        return base(attn, hidden_states, text, attention_mask)
    features = as_sequence(attn, hidden_states)
    if attn.norm_cross is not None:
        text = attn.norm_encoder_hidden_states(text)
    layer = Layer(attn, features, attn.to_q(features))
    mask = head_mask(attn, attention_mask, text)
    attended = attend(attn, layer.query, attn.to_k(text), attn.to_v(text), mask)
    for branch, prompt in attending:
        attended = branch.add_attention(attended, layer, prompt)
    out = attn.to_out[0](attended)
    for branch, prompt in attending:
        out = branch.add_output(out, layer, prompt)
    return as_input(attn, attn.to_out[1](out), hidden_states)


def added_scores(
    weights: Float[Tensor, "prompts positions"], length: int
) -> Float[Tensor, "positions {length}"]:
    """Additive scores of M image tokens that give each prompt its weight.

    Repeating a token w times equals adding log w to its score; weight 0 removes it.

    Args:
        weights: of n prompts at N positions, or the same at all, `(n, N or 1)`.
        length: M.

    Returns:
        `(N or 1, M)`.
    """
    return weights.log().repeat_interleave(length // len(weights), dim=0).T


def attend(
    attn: Attention,
    query: Float[Tensor, "batch positions inner"],
    key: Float[Tensor, "batch keys inner"],
    value: Float[Tensor, "batch keys inner"],
    mask: Float[Tensor, "... keys"] | None = None,
) -> Float[Tensor, "batch positions inner"]:
    """`softmax(Q K^T / sqrt(d)) V` for each head: `(B, N, inner_dim)`, in the dtype of `query`."""

    def heads(x: Tensor) -> Tensor:  # (B, heads, length, d)
        return x.to(query.dtype).unflatten(-1, (attn.heads, -1)).transpose(1, 2)

    out = F.scaled_dot_product_attention(heads(query), heads(key), heads(value), attn_mask=mask)
    return out.transpose(1, 2).flatten(2).to(query.dtype)


def head_mask(
    attn: Attention,
    mask: Float[Tensor, "batch rows text"] | None,
    text: Float[Tensor, "batch text dim"],
) -> Float[Tensor, "batch heads rows text"] | None:
    """The additive mask `(B, 1, L)` for each head `(B, heads, 1, L)`, as diffusers prepares it."""
    if mask is None:
        return None
    batch, length, _ = text.shape
    mask = attn.prepare_attention_mask(mask, length, batch)
    return mask.view(batch, attn.heads, -1, mask.shape[-1])


def as_sequence(
    attn: Attention, hidden_states: Float[Tensor, " batch *features"]
) -> Float[Tensor, "batch positions channels"]:
    """Normed features `(B, N, C)` of a layer's input, as in diffusers' `AttnProcessor2_0`."""
    if hidden_states.ndim == 4:
        hidden_states = hidden_states.flatten(2).transpose(1, 2)
    if attn.group_norm is not None:
        hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
    return hidden_states


def as_input(
    attn: Attention,
    out: Float[Tensor, "batch positions channels"],
    hidden_states: Float[Tensor, " batch *features"],
) -> Float[Tensor, " batch *features"]:
    """Give `out (B, N, C)` the shape of the layer's input, its residual and its rescaling."""
    if hidden_states.ndim == 4:
        out = out.transpose(1, 2).reshape(hidden_states.shape)
    if attn.residual_connection:
        out = out + hidden_states
    return out / attn.rescale_output_factor


def copy_of(layer: LinearLayer) -> nn.Linear:
    """A trainable fp32 copy of a frozen layer's weight, without bias; draws no random number."""
    copy = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    copy.weight = nn.Parameter(layer.weight.detach().to(torch.float32, copy=True))
    return copy


class FrozenLinear(nn.Linear):
    """`x W^T` with the weight of a frozen layer: read at each call, never owned, no bias.

    It has no parameter of its own, so the shared weight is neither trained nor saved with an
    adapter, and exists once in memory (but for `keep`).
    """

    def __init__(self, layer: LinearLayer) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.register_parameter("bias", None)
        self.share(layer)

    def share(self, layer: LinearLayer) -> None:
        """Read the weight of `layer` from now on."""
        self._layer = (layer,)  # a tuple hides it from torch, so it is no child module
        self.register_buffer("_kept", None, persistent=False)

    def keep(self) -> None:
        """Read a copy of the weight from now on, without what PEFT has merged into it."""
        self._kept = unmerged(self._layer[0]).weight.detach().clone()

    @property
    def weight(self) -> Float[Tensor, "outputs inputs"]:  # type: ignore[override]
        """The frozen weight `(out_features, in_features)`."""
        return self._layer[0].weight if self._kept is None else self._kept

    def forward(self, input: Float[Tensor, " *batch inputs"]) -> Float[Tensor, " *batch outputs"]:
        """`(.., in_features)` to `(.., out_features)`, in the dtype of the weight."""
        return F.linear(input.to(self.weight.dtype), self.weight)


def unmerged(layer: LinearLayer) -> LinearLayer:
    """The layer as it is without the LoRA, or another of PEFT's tuners, merged into its weight."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    if not (isinstance(layer, BaseTunerLayer) and layer.merged):
        return layer
    copied: Any = copy.deepcopy(layer)
    copied.unmerge()
    return copied
