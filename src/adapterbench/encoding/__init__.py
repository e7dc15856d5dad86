"""Precomputed outputs of the frozen encoders."""
