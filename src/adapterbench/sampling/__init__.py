"""Generate the images that are scored."""
