"""Train, sample, score and compare light image-prompt adapters for Stable Diffusion."""
