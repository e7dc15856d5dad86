"""Sources of the frozen models, and further base models made from them."""
