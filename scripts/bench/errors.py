"""The one exception of the benchmark."""


class MeasurementError(Exception):
    """A figure that can't be trusted or had; the message says why."""
