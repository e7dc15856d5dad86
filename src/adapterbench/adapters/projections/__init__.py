"""Projections of an image embedding `c_g (B, c)` to image tokens `(B, K, D)`.

A projection is a module with `Params`, its fields of a variant, and `build(params, embed_dim,
width)`, which returns the `nn.Module` for `c = embed_dim` and `D = width`. Its file name is its key
in `params.yaml`. `Params` derives from a class that says what the projection reads:
`ReadsEmbedding`, `(B, c)`, or `ReadsPatches`, the features of S patches `(B, S, c)`; both have
`tokens`, which is K.
"""
