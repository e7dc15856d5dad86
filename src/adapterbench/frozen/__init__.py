"""The frozen models as the adapters see them."""
