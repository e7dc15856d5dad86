"""The adapter, its parts and its storage."""
