"""The demo: a page in the browser where people try the adapters."""
