"""The two things that a UNet sees of an adapter, through diffusers' own channel for image prompts.

`unet.encoder_hid_proj` gets the pipelines' `ip_adapter_image_embeds` and answers with image
tokens; the UNet hands `(text, [tokens])` to the processor of each cross-attention layer. So every
Stable Diffusion pipeline (text to image, image to image, inpainting, ControlNet) takes an adapter.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from adapterbench.adapters.core.branch import BaseProcessor, Branch

if TYPE_CHECKING:
    from adapterbench.adapters.core.base import Adapter


class ImageChannel(nn.Module):
    """`encoder_hid_proj` of a UNet with an adapter.

    The adapter moves with the UNet (`pipe.to("cuda", torch.float16)`) but is no child of it. So
    the UNet's parameters and state stay the base model's own: freezing or saving the UNet leaves
    the adapter alone, and so do the pipelines' LoRA calls, which take any LoRA layer that they
    find under the UNet for theirs (`set_adapters` would switch it off, `fuse_lora` would merge it
    into the frozen weight).
    """

    def __init__(self, adapter: "Adapter") -> None:
        super().__init__()
        self._adapter = (adapter,)  # in a tuple, torch does not take it for a child

    @property
    def adapter(self) -> "Adapter":
        """The adapter behind the channel."""
        return self._adapter[0]

    def forward(self, image_embeds: list[Tensor]) -> list[Tensor]:
        """`[(B, n, c)]`, n image prompts, to `[(B, n K, D)]`, their tokens."""
        return [self.adapter(embeds) for embeds in image_embeds]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.adapter._apply(fn, recurse)
        return super()._apply(fn, recurse)


class LayerProcessor:
    """Attention processor of one cross-attention layer; `base` is the one it stands for."""

    def __init__(self, branch: Branch, base: BaseProcessor) -> None:
        self.branch = branch
        self.base = base

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: tuple[Tensor, list[Tensor]],
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Split `(text (B, L, D), [tokens (B, M, D)])` for the branch (see `Branch.forward`)."""
        text, (tokens,) = encoder_hidden_states
        return self.branch(attn, self.base, hidden_states, text, tokens, attention_mask, temb)
