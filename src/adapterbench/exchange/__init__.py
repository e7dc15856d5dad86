"""Adapters in other programs: diffusers pipelines, the IP-Adapter and PEFT formats."""
