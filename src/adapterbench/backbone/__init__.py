"""Frozen models: how they are brought and loaded, and how the small ones are made."""
