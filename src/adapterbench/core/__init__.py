"""Foundations of the package: parameters, errors, files, the registry of parts."""
