"""Hooks that connect adapters to a diffusers UNet, by its interface for image prompts.

`unet.encoder_hid_proj` maps the pipelines' `ip_adapter_image_embeds`, one entry per adapter, to
image tokens; the UNet passes `(text, [tokens, ..])` to the processor of each cross-attention layer.
So adapters work in every Stable Diffusion pipeline (text to image, image to image, inpainting,
ControlNet).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn, Self, cast

from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor, IPAdapterAttnProcessor2_0
from jaxtyping import Float
from torch import Tensor, nn

from adapterbench.adapters.core.branch import BaseProcessor, Branch, Prompt, run_layer
from adapterbench.adapters.core.masks import checked_masks
from adapterbench.core.errors import UserError

CHANNEL = "ip_image_proj"
"""diffusers' value of `encoder_hid_dim_type` for image prompts."""
MASKS = "ip_adapter_masks"
"""diffusers' key of the masks in `cross_attention_kwargs`."""


class ImageChannel(nn.Module):
    """The `encoder_hid_proj` of a UNet with one or more adapters.

    An adapter moves with the UNet (`pipe.to("cuda", torch.float16)`) but is no child of it. So
    the parameters and state of the UNet stay those of the base model: freezing or saving the UNet
    does not affect the adapter, nor do the pipelines' LoRA calls, which apply to every LoRA layer
    under the UNet (`set_adapters` would disable it, `fuse_lora` would merge it).
    """

    def __init__(self, adapters: Sequence[Any], unet: UNet2DConditionModel) -> None:
        super().__init__()
        self._ends = (
            tuple(adapters),
            unet,
        )  # a tuple hides them from torch, so they are no child modules

    @property
    def adapters(self) -> tuple[Any, ...]:
        """The adapters, which map embeddings to image tokens."""
        return self._ends[0]

    @property
    def unet(self) -> UNet2DConditionModel:
        """The UNet that the adapters are attached to."""
        return self._ends[1]

    @property
    def is_installed(self) -> bool:
        """Whether the UNet still has it; `unload_ip_adapter` and `load_ip_adapter` remove it."""
        return self.unet.encoder_hid_proj is self

    def install(self, layers: Iterable[tuple[Attention, Sequence[Branch]]]) -> None:
        """Install this module in the UNet, and the branches of all adapters in their layers."""
        self.unet.encoder_hid_proj = self  # type: ignore[assignment]  # any module will do
        # an attribute, as in diffusers: a config entry would be saved, and no UNet loads with it
        config: Any = self.unet.config
        config.encoder_hid_dim_type = CHANNEL
        self.hook = self.unet.register_forward_pre_hook(self.check, with_kwargs=True)
        for attn, branches in layers:
            LayerHook(self, attn, branches).install()

    def remove(self) -> None:
        """Restore the UNet, except for later changes by others."""
        self.hook.remove()
        for hook in layer_hooks(self.unet):
            hook.remove()
        if self.unet.encoder_hid_proj in (self, None):
            del self.unet.encoder_hid_proj  # else None would remain as a child module
            self.unet.encoder_hid_proj = None
            config: Any = self.unet.config
            config.encoder_hid_dim_type = None

    def forward(
        self, image_embeds: list[Float[Tensor, "batch _ ..."]]
    ) -> list[Float[Tensor, "batch _ dim"]]:
        """`[(B, n, c), ..]`, n image prompts of each adapter, to `[(B, n K, D), ..]`, tokens."""
        pairs = zip(self.adapters, image_embeds, strict=True)
        return [adapter(embeds) for adapter, embeds in pairs]

    def check(
        self, _unet: nn.Module, args: tuple[Any, ...], inputs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Check that a call of the UNet has image prompts for each adapter; a forward pre-hook.

        Returns:
            The inputs with masks in the format of the layers; None: unchanged.

        Raises:
            UserError: image prompts or masks are missing, or their numbers do not fit.
        """
        if not self.is_installed:
            return None
        image_embeds = (inputs.get("added_cond_kwargs") or {}).get("image_embeds")
        if image_embeds is None:
            raise UserError(
                "the UNet has an adapter and got no image prompt: call the pipeline with "
                "**image_prompt(image), or image_prompt.detach() first"
            )
        if len(image_embeds) != len(self.adapters):
            raise UserError(
                f"the UNet has {len(self.adapters)} adapter(s) and got image prompts for "
                f"{len(image_embeds)}: give ip_adapter_image_embeds one entry for each"
            )
        sample, timestep, *_ = [*args, *(inputs[n] for n in ("sample", "timestep") if n in inputs)]
        kwargs = inputs.get("cross_attention_kwargs") or {}
        masks = checked_masks(kwargs.get(MASKS), image_embeds, sample)
        for adapter, embeds, mask in zip(self.adapters, image_embeds, masks, strict=True):
            adapter.check_images(embeds.shape[1], masked=mask is not None)
            adapter.prepare(timestep, embeds.device)
        if MASKS not in kwargs:
            return None
        return args, inputs | {"cross_attention_kwargs": kwargs | {MASKS: masks}}

    @property
    def image_projection_layers(self) -> NoReturn:
        """Accessed by pipelines to encode `ip_adapter_image` for diffusers' own adapters.

        Raises:
            UserError: always.
        """
        raise UserError(
            "this adapter takes no ip_adapter_image: call the pipeline with **image_prompt(image)"
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        for adapter in self.adapters:
            adapter._apply(fn, recurse)
        return super()._apply(fn, recurse)


class LayerProcessor:
    """Attention processor of one cross-attention layer; `base` is the one that it wraps."""

    def __init__(self, branches: Sequence[Branch], base: BaseProcessor) -> None:
        self.branches = branches
        self.base = base

    def __call__(
        self,
        attn: Attention,
        hidden_states: Float[Tensor, " batch *features"],
        encoder_hidden_states: tuple[
            Float[Tensor, "batch text dim"], list[Float[Tensor, "batch _ dim"]]
        ]
        | Float[Tensor, "batch text dim"],
        attention_mask: Float[Tensor, "batch rows text"] | None = None,
        ip_adapter_masks: Sequence[Float[Tensor, "1 _ _ _"] | None] | None = None,
    ) -> Float[Tensor, " batch *features"]:
        """Split `(text (B, L, D), [tokens (B, M, D), ..])` for the branches (see `run_layer`)."""
        if isinstance(encoder_hidden_states, Tensor):  # the UNet has no `ImageChannel` any more
            return self.base(attn, hidden_states, encoder_hidden_states, attention_mask)
        text, tokens = encoder_hidden_states
        masks = ip_adapter_masks or [None] * len(tokens)
        prompts = [Prompt(*parts) for parts in zip(tokens, masks, strict=True)]
        branches = list(zip(self.branches, prompts, strict=True))
        return run_layer(attn, self.base, hidden_states, text, attention_mask, branches)


class DisguisedProcessor(IPAdapterAttnProcessor2_0):
    """A `LayerProcessor` that diffusers takes for a processor of its own IP-Adapter.

    So `unload_ip_adapter` removes it, and `set_ip_adapter_scale`, which ignores all other
    processors, raises an error. It computes what the `LayerProcessor` does.
    """

    def __init__(self, processor: LayerProcessor) -> None:
        nn.Module.__init__(self)
        self.processor = processor

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """diffusers' class, for its checks of the exact class."""
        return IPAdapterAttnProcessor2_0

    @property
    def scale(self) -> NoReturn:
        """Set by pipelines as lambda.

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
    """Keeps branches in a cross-attention layer when its processor is replaced.

    Attention slicing, fused projections, xFormers and others set a layer's processor, which then
    becomes the base of the `LayerProcessor`.
    """

    def __init__(self, channel: ImageChannel, attn: Attention, branches: Sequence[Branch]) -> None:
        self.channel, self.attn, self.branches = channel, attn, branches

    def install(self) -> None:
        """Wrap the layer's processor, and its getter and setter."""
        self.attn.set_processor = self.set  # type: ignore[method-assign]
        self.attn.get_processor = self.get  # type: ignore[method-assign, assignment]
        self.set(self.attn.processor)

    def remove(self) -> None:
        """Restore the base processor and its getter and setter."""
        base = self.own.base
        del self.attn.set_processor, self.attn.get_processor
        put(self.attn, base)

    @property
    def own(self) -> LayerProcessor:
        """The layer's processor while the hook is in place."""
        return cast(LayerProcessor, self.attn.processor)

    def set(self, processor: BaseProcessor) -> None:
        """Wrap `processor`; if the `ImageChannel` has been removed, set it unwrapped."""
        if not self.channel.is_installed:
            self.channel.hook.remove()
            self.remove()
            put(self.attn, processor)
            return
        if isinstance(processor, DisguisedProcessor):
            processor = processor.processor.base
        put(self.attn, LayerProcessor(self.branches, processor))

    def get(self) -> DisguisedProcessor:
        """A processor that callers may `set` later to restore the present base."""
        return DisguisedProcessor(self.own)


def put(attn: Attention, processor: BaseProcessor) -> None:
    """Set a layer's processor; diffusers accepts any, but declares one class."""
    Attention.set_processor(attn, cast(AttnProcessor, processor))


def layer_hooks(unet: UNet2DConditionModel) -> list[LayerHook]:
    """The installed hooks of a UNet."""
    attentions = [module for module in unet.modules() if isinstance(module, Attention)]
    setters = [getattr(attn.set_processor, "__self__", None) for attn in attentions]
    return [owner for owner in setters if isinstance(owner, LayerHook)]


def channels(unet: UNet2DConditionModel) -> set[ImageChannel]:
    """The channels with hooks in the layers of a UNet."""
    return {hook.channel for hook in layer_hooks(unet)}
