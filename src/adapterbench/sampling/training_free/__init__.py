"""Methods that use the reference image without training, by name: the file name is the key.

A module has `Params`, the fields of its row in `training_free:`, and `build(params, sampler)`,
which returns a `Generate` for the sampler's pipeline.
"""
