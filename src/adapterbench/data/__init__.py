"""Captioned images: sources, splits and shards."""
