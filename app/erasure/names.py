"""The kinds of the jobs that erasures leave."""

ERASE = "erasure"
VERIFY = "erasure.verification"
