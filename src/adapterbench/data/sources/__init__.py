"""Sources of raw images.

A source is a module with `Params`, the fields of `data.fetch`; `fetch(params, out)`, which fills
the folder `out`; and `read(raw, params)`, which yields `RawSample`s from it in a fixed order, one
split after the other if it has its own split. `ATTRIBUTION` names the makers and licences
by set. Its file name is its key in `params.yaml`.
"""
