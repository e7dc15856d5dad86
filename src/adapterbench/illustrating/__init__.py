"""Generate the images of the figures that stage `sample` does not make."""
