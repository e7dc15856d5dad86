"""The file formats of the project, a reader and a writer each."""
