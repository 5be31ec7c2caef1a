"""The version of the distribution `memstore-client`: the one of the server that it is released with."""

__version__ = "0.1.0"
