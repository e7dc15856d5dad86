"""The pictures that are scored."""
