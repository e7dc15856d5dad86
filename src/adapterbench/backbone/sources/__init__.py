"""Sources of the frozen models.

A source is a module with `fetch(params, out)`, which fills the folder `out` in diffusers layout.
Its file name is its key in `params.yaml`.
"""
