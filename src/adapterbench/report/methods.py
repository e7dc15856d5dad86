"""The rows of the comparison: names, labels and order."""

from collections.abc import Callable, Collection, Mapping, Sequence

STUDY = {
    "uni_controlnet_global": "Uni-ControlNet (Global)",
    "ip_adapter_mlp_lora": "IP-Adapter MLP LoRA",
    "ip_adapter_lora": "IP-Adapter LoRA",
    "ip_adapter_mlp": "IP-Adapter MLP",
    "ip_adapter": "IP-Adapter",
}
"""The five variants of the original study, in the order of its table."""

SHUFFLED = "shuffled_reference"

BASELINES = {
    "no_prompt": "No prompt",
    "text_only": "Text only",
    SHUFFLED: "Shuffled reference",
    "other_item": "Other item's image",
    "reference_16px": "Reference at 16 px",
    "vae": "VAE reconstruction",
    "reference": "Reference image",
}
"""Floors and ceilings. None uses the item's image prompt, so they belong to no protocol and are
rows of both tables."""

TRAINING_FREE = {
    "img2img": "Image to image",
    "reference_only": "Reference only",
}
"""Methods that use the item's image without an adapter: the modules of `sampling.training_free`.
They are rows of both tables where the parameter file lists them."""

WITHOUT_ADAPTER = {**TRAINING_FREE, **BASELINES}

FLOORS = ("no_prompt", "text_only", SHUFFLED, "other_item")

CEILINGS = ("reference_16px", "vae", "reference")

REAL = ("other_item", *CEILINGS)
"""Baselines that are real images, one per item."""

ORIGINAL = "ip_adapter"
"""The variant that the others modify; if present, it is the baseline of their differences."""


Names = Callable[[str], str]
"""Method -> label."""

DAGGER = "†"
"""Mark of a variant that was trained with other settings than the others."""


def label(method: str, own: Mapping[str, str] | None = None) -> str:
    """Label of a method: from `own`, else the built-in one, else its name.

    Args:
        own: labels that the user set, by method.
    """
    return {**STUDY, **WITHOUT_ADAPTER, **(own or {})}.get(method, method)


def in_order(variants: Sequence[str]) -> list[str]:
    """The variants of the original study in its order, then the others in the given order."""
    known = list(STUDY)
    return sorted(variants, key=lambda v: known.index(v) if v in STUDY else len(known))


def contrasts(
    variants: Sequence[str], training_free: Collection[str] = ()
) -> list[tuple[str, str]]:
    """The pairs `(method, baseline)` to compare: each variant with every other method.

    The other methods are the training-free ones, the floors and the variants. A pair of variants
    appears once. `ip_adapter`, if present, or else the first variant, is the baseline in all its
    pairs.
    """
    original = ORIGINAL if ORIGINAL in variants else variants[0]
    others = [v for v in variants if v != original]
    pairs = [(v, other) for v in variants for other in (*training_free, *FLOORS)]
    pairs += [(v, original) for v in others]
    return pairs + [(b, a) for i, a in enumerate(others) for b in others[i + 1 :]]
