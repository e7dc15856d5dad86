"""Methods that use the reference image without training, by name: the file name is the key.

A module has `Params`, the fields of its row in `training_free:`, `build(params, sampler)`, which
returns a `Generate` for the sampler's pipeline, and `predictions(params, steps, prompts)`, which
tells `adapterbench plan` how often the UNet is run for an image.
"""
