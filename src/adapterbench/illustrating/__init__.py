"""Pictures for the figures beyond those that are scored."""
