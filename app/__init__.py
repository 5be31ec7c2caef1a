"""Memstore: self-hosted memory stores for agents."""

__version__ = "0.1.0"
