"""From an image embedding `c_g (B, c)` to image tokens `(B, K, D)`.

A projection is a module with `Params`, its fields of a variant (`tokens` is K), and
`build(params, embed_dim, width)`, which returns the `nn.Module` for `c = embed_dim` and
`D = width`. Its file name is its key in `params.yaml`. One whose `Params` have a `patch_width`
reads the features of S patches `(B, S, patch_width)` instead of the embedding.
"""
