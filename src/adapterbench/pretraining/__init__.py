"""Train the small backbone from scratch and measure it: tokenizer, CLIP, VAE, UNet, report."""
