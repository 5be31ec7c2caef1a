"""The numbers of the contract, each with its unit. Section 1.8 of the vendor's contract unless said.

Limits an operator may change are settings (`app.settings`); these are fixed by the API.
"""

NAME_MAX_CHARACTERS = 255
DESCRIPTION_MAX_CHARACTERS = 1_024
METADATA_MAX_PAIRS = 16
METADATA_KEY_MAX_CHARACTERS = 64
METADATA_VALUE_MAX_CHARACTERS = 512

CONTENT_MAX_BYTES = 102_400
"""UTF-8 bytes of one memory."""

PATH_MAX_BYTES = 1_024
"""UTF-8 bytes of a path, its leading slash included."""

PATH_MAX_SEGMENTS = 20

PAGE_LIMIT_DEFAULT = 20
PAGE_LIMIT_MAX = 100
PAGE_LIMIT_MAX_FULL = 20
"""A page with `view=full` holds at most this many items; a larger `limit` is capped, not refused."""
