"""Adapters in diffusers pipelines, and in the formats of IP-Adapter and PEFT."""
