"""The deployment's own key: its reports are signed with Ed25519, and anybody with the public key can check them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from app.erasure import queries
from app.storage.rows.database import Database, Transaction

SIGNATURE = "signature"
"""The member of a signed object that the signature does not cover."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """The signer: the installation's ID and its key."""

    id: str
    key: Ed25519PrivateKey

    @property
    def public_key(self) -> str:
        """32 bytes in hex."""
        return self.key.public_key().public_bytes_raw().hex()

    def sign(self, report: Mapping[str, Any]) -> dict[str, Any]:
        """The report with its signature, 64 bytes in hex."""
        return {**report, SIGNATURE: self.key.sign(canonical(report)).hex()}


def canonical(report: Mapping[str, Any]) -> bytes:
    """What is signed: everything but the signature, as compact JSON with sorted keys in UTF-8."""
    covered = {name: value for name, value in report.items() if name != SIGNATURE}
    return json.dumps(covered, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def is_signed_by(report: Mapping[str, Any], public_key: str) -> bool:
    """Whether the report is as the owner of this key signed it."""
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        key.verify(bytes.fromhex(report[SIGNATURE]), canonical(report))
    except (InvalidSignature, ValueError, TypeError, KeyError):
        return False
    return True


async def deployment(database: Database) -> Deployment:
    """The deployment at hand. Its key is made when it is first needed; two who need it at once get the same."""
    made = Ed25519PrivateKey.generate().private_bytes_raw()

    async def work(transaction: Transaction) -> tuple[str, bytes]:
        await transaction.execute(queries.SET_SIGNING_KEY, {"signing_key": made})
        row = await transaction.fetch_one(queries.SIGNING_KEY, {})
        assert row is not None
        return row["id"], bytes(row["signing_key"])

    row = await database.fetch_one(queries.SIGNING_KEY, {})
    assert row is not None
    if row["signing_key"] is None:
        identifier, key = await database.transact(work)
    else:
        identifier, key = row["id"], bytes(row["signing_key"])
    return Deployment(identifier, Ed25519PrivateKey.from_private_bytes(key))
