"""What a version did, in the wire's words."""

from typing import Literal

from app.storage.rows.tables import CREATED, DELETED, MODIFIED

Operation = Literal["created", "modified", "deleted"]

OPERATION_NAMES: dict[int, Operation] = {CREATED: "created", MODIFIED: "modified", DELETED: "deleted"}
OPERATION_CODES = {name: code for code, name in OPERATION_NAMES.items()}
