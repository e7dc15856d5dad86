"""How the cross-attention layers of the UNet use the image tokens.

An attention is a module with `Params`, its fields of a variant, and `build(params, attn)`, which
returns the `Branch` of one layer. Its file name is its key in `params.yaml`.
"""
