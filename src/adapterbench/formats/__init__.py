"""The file formats of the project, each with its reader and writer."""
