"""Hooks that connect an adapter to a diffusers UNet, through its own channel for image prompts.

`unet.encoder_hid_proj` gets the pipelines' `ip_adapter_image_embeds` and answers with image
tokens; the UNet hands `(text, [tokens])` to the processor of each cross-attention layer. So every
Stable Diffusion pipeline (text to image, image to image, inpainting, ControlNet) takes an adapter.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn, Self

from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, IPAdapterAttnProcessor2_0
from torch import Tensor, nn

from adapterbench.adapters.core.branch import BaseProcessor, Branch
from adapterbench.core.errors import UserError

CHANNEL = "ip_image_proj"
"""diffusers' name for `encoder_hid_proj` taking image prompts."""


class ImageChannel(nn.Module):
    """`encoder_hid_proj` of a UNet with an adapter.

    The adapter moves with the UNet (`pipe.to("cuda", torch.float16)`) but is no child of it. So
    the UNet's parameters and state stay the base model's own: freezing or saving the UNet leaves
    the adapter alone, and so do the pipelines' LoRA calls, which take any LoRA layer that they
    find under the UNet for theirs (`set_adapters` would switch it off, `fuse_lora` would merge it
    into the frozen weight).
    """

    def __init__(self, adapter: nn.Module, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self._ends = (adapter, unet)  # in a tuple, torch does not take them for children

    @property
    def adapter(self) -> nn.Module:
        """The adapter behind the channel: what makes image tokens of embeddings."""
        return self._ends[0]

    @property
    def unet(self) -> UNet2DConditionModel:
        """The UNet before the channel."""
        return self._ends[1]

    @property
    def is_open(self) -> bool:
        """Whether the UNet still has it: `unload_ip_adapter` and `load_ip_adapter` take it away."""
        return self.unet.encoder_hid_proj is self

    def install(self, branches: Iterable[tuple[Attention, Branch]]) -> None:
        """Put the channel into the UNet, and each branch into its layer."""
        self.unet.encoder_hid_proj = self
        # an attribute, as diffusers sets it: an entry would be saved, and no UNet loads with it
        self.unet.config.encoder_hid_dim_type = CHANNEL
        self.hook = self.unet.register_forward_pre_hook(self.check, with_kwargs=True)
        for attn, branch in branches:
            LayerHook(self, attn, branch).install()

    def remove(self) -> None:
        """Give the UNet back as it was, but for what others have put there since."""
        self.hook.remove()
        for hook in layer_hooks(self.unet):
            hook.remove()
        if self.unet.encoder_hid_proj in (self, None):
            del self.unet.encoder_hid_proj  # else None would stay behind as a child
            self.unet.encoder_hid_proj = None
            self.unet.config.encoder_hid_dim_type = None

    def forward(self, image_embeds: list[Tensor]) -> list[Tensor]:
        """`[(B, n, c)]`, n image prompts, to `[(B, n K, D)]`, their tokens."""
        return [self.adapter(embeds) for embeds in image_embeds]

    def check(self, _unet: nn.Module, _args: Any, inputs: Mapping[str, Any]) -> None:
        """Refuse a call of the UNet that lacks the image prompt or asks for what is not done here.

        Raises:
            UserError: what the call lacks, or has too much.
        """
        if not self.is_open:
            return
        if "image_embeds" not in (inputs.get("added_cond_kwargs") or {}):
            raise UserError(
                "the UNet has an adapter and got no image prompt: call the pipeline with "
                "**image_prompt(image), or image_prompt.detach() first"
            )
        if "ip_adapter_masks" in (inputs.get("cross_attention_kwargs") or {}):
            raise UserError(
                "this adapter takes no ip_adapter_masks: leave them out, or use an inpainting "
                "pipeline to bound the image prompt"
            )

    @property
    def image_projection_layers(self) -> NoReturn:
        """Where pipelines look for diffusers' own adapters, to encode `ip_adapter_image` for them.

        Raises:
            UserError: always.
        """
        raise UserError(
            "this adapter takes no ip_adapter_image: call the pipeline with **image_prompt(image)"
        )

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
        encoder_hidden_states: tuple[Tensor, list[Tensor]] | Tensor,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Split `(text (B, L, D), [tokens (B, M, D)])` for the branch (see `Branch.forward`)."""
        if isinstance(encoder_hidden_states, Tensor):  # the UNet has lost the channel
            return self.base(attn, hidden_states, encoder_hidden_states, attention_mask)
        text, (tokens,) = encoder_hidden_states
        return self.branch(attn, self.base, hidden_states, text, tokens, attention_mask)


class SeenProcessor(IPAdapterAttnProcessor2_0):
    """What diffusers sees of a `LayerProcessor`: one of its own IP-Adapters'.

    So `unload_ip_adapter` takes it away, and `set_ip_adapter_scale`, which skips all processors
    but those, cannot pass it over in silence. Wherever it is put, it does what the other does.
    """

    def __init__(self, processor: LayerProcessor) -> None:
        nn.Module.__init__(self)
        self.processor = processor

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """diffusers' class itself, which some places of it ask for."""
        return IPAdapterAttnProcessor2_0

    @property
    def scale(self) -> NoReturn:
        """Where pipelines set lambda.

        Raises:
            UserError: always.
        """
        raise UserError(
            "set_ip_adapter_scale does not reach this adapter: give the scale to "
            "image_prompt(image, scale=...), or set image_prompt.adapter.scale"
        )

    def __call__(self, *inputs: Any, **more: Any) -> Tensor:
        """See `LayerProcessor`."""
        return self.processor(*inputs, **more)


class LayerHook:
    """Keeps a branch in a cross-attention layer, whatever processor others give the layer.

    Attention slicing, fused projections, xFormers and the like set a layer's processor; what they
    set becomes the base of the `LayerProcessor`.
    """

    def __init__(self, channel: ImageChannel, attn: Attention, branch: Branch) -> None:
        self.channel, self.attn, self.branch = channel, attn, branch

    def install(self) -> None:
        """Take over the layer's processor, and what reads and sets it."""
        self.attn.set_processor, self.attn.get_processor = self.set, self.get
        self.set(self.attn.processor)

    def remove(self) -> None:
        """Leave the layer with the base alone."""
        del self.attn.set_processor, self.attn.get_processor
        self.attn.set_processor(self.attn.processor.base)

    def set(self, processor: BaseProcessor) -> None:
        """Stand for `processor`; without the channel, make way for it."""
        if not self.channel.is_open:
            self.channel.hook.remove()
            self.remove()
            self.attn.set_processor(processor)
            return
        if isinstance(processor, SeenProcessor):
            processor = processor.processor.base
        Attention.set_processor(self.attn, LayerProcessor(self.branch, processor))

    def get(self) -> SeenProcessor:
        """What others get, and may `set` again later to have the base of this moment back."""
        return SeenProcessor(self.attn.processor)


def layer_hooks(unet: UNet2DConditionModel) -> list[LayerHook]:
    """Those that are in place."""
    attentions = [module for module in unet.modules() if isinstance(module, Attention)]
    setters = [getattr(attn.set_processor, "__self__", None) for attn in attentions]
    return [owner for owner in setters if isinstance(owner, LayerHook)]


def channels(unet: UNet2DConditionModel) -> set[ImageChannel]:
    """Those that have hooks in its layers."""
    return {hook.channel for hook in layer_hooks(unet)}
