"""The demo: a web page to try the adapters."""
