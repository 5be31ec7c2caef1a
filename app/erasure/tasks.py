"""What erasures leave for later, as jobs: the erasing itself, and the look at what is left.

Every erasure has a job, written in the transaction that records it. A command that runs the erasure itself, as
`memstore forget` does, needs the job only if it is killed: then a server finishes it. The look is written in the
transaction that closes the record.
"""

import logging
from functools import partial

from app.contract.actors import Actor
from app.contract.errors import UnderLegalHold
from app.erasure.names import ERASE, VERIFY
from app.erasure.report import report
from app.erasure.service import Erasures, Occupied
from app.erasure.verification import verify
from app.jobs.kinds import GiveUp, Job, Kind, NotNow, Payload
from app.jobs.service import Jobs
from app.storage.storage import Storage

_log = logging.getLogger(__name__)

_ATTEMPTS = 60
"""With pauses of up to five minutes these are about five hours: whatever was away by then needs an operator."""
_OCCUPIED_SECONDS = 10.0
_MOST_FINDINGS = 1_000


def kinds(storage: Storage, jobs: Jobs) -> tuple[Kind, ...]:
    """The jobs of erasures, for the worker of a process that serves."""
    return (
        Kind(ERASE, partial(_erase, storage, jobs), attempts=_ATTEMPTS),
        Kind(VERIFY, partial(_verify, storage), attempts=_ATTEMPTS),
    )


async def _erase(storage: Storage, jobs: Jobs, job: Job) -> Payload | None:
    erasure = await Erasures(storage, _NOBODY, jobs).find(job.payload["erasure_id"])
    erasures = Erasures(storage, Actor(erasure["actor_type"], erasure["actor_id"]), jobs)
    try:
        await erasures.run(erasure["id"], partial(_log.debug, "erasure: %s"), patience_seconds=0)
    except Occupied:
        raise NotNow(_OCCUPIED_SECONDS) from None
    except UnderLegalHold as error:
        raise GiveUp(error.message) from None
    return None


async def _verify(storage: Storage, job: Job) -> Payload:
    erasure = await Erasures(storage, _NOBODY).find(job.payload["erasure_id"])
    verdict = await verify(storage, await report(storage.database, erasure), None)
    return verdict.as_json(most=_MOST_FINDINGS)


_NOBODY = Actor("", "")
"""The author of a look, which writes nothing."""
