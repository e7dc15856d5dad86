"""How the small backbone is trained from scratch: tokenizer, CLIP, VAE, UNet, report."""
