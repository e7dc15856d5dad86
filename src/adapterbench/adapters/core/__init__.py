"""The adapter, its parts and its folder on disk."""
