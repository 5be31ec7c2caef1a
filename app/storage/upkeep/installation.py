"""The owner of the blobs: the database's own ID, marked on the blob store by the first installation that uses it."""

from app.contract.errors import MemstoreError
from app.storage.contents.blobs import BlobStore, DamagedMark
from app.storage.rows.database import Database
from app.storage.rows.statements import Statement

_INSTALLATION = Statement("SELECT id FROM installation")


class SharedBlobStore(MemstoreError):
    """The blob store also holds another installation's blobs; what is an orphan there can't be told."""


class Ownership:
    """Tells whether the blob store is this database's own."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database = database
        self._blobs = blobs
        self._id: str | None = None

    async def check(self) -> None:
        """Read the mark, or write it if there is none; so the blob store is seen to answer, and to be the right one.

        Raises:
            BlobStoreUnavailable: it does not answer, or the bucket does not exist.
            SharedBlobStore: it belongs to another installation.
        """
        if self._id is None:
            row = await self._database.fetch_one(_INSTALLATION, {})
            assert row is not None
            self._id = row["id"]
        try:
            owner = await self._blobs.owner(self._id)
        except DamagedMark as error:
            raise SharedBlobStore(
                f"{error}, so orphaned blobs are not looked for; remove it if no other installation uses this place"
            ) from error
        if owner != self._id:
            raise SharedBlobStore(
                "the blob store belongs to another installation, so orphaned blobs are not looked for; "
                "give each installation a bucket, prefix or directory of its own"
            )
