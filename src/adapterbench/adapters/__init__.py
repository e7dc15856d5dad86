"""Light image-prompt adapters over a frozen diffusers UNet."""
