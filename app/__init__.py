"""Memstore: self-hosted memory stores for agents."""

DISTRIBUTION = "memstore-server"
"""What the packages of this project are called by. `memstore` on the package index is somebody else's."""

__version__ = "0.1.0"
