"""One run of the study, and the choice of a learning rate by short ones."""
