"""Makes the bucket of MEMSTORE_BLOB_URL, for your own S3 server; the service itself never makes one.

It waits for the server. A bucket that is there is fine.
"""

import os
import sys
import time
from urllib.parse import urlsplit

import boto3
from botocore.exceptions import BotoCoreError, ClientError

_SECONDS = 60


def main() -> int:
    """Make it; the exit status."""
    bucket = urlsplit(os.environ["MEMSTORE_BLOB_URL"]).netloc
    client = boto3.client(
        "s3",
        endpoint_url=os.environ.get("MEMSTORE_S3_ENDPOINT_URL") or None,
        region_name=os.environ.get("AWS_REGION", "us-east-1"),
    )
    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            if bucket not in [each["Name"] for each in client.list_buckets()["Buckets"]]:
                client.create_bucket(Bucket=bucket)
            return 0
        except (BotoCoreError, ClientError) as error:
            if time.monotonic() > deadline:
                print(f"the bucket {bucket!r} can't be made: {error}", file=sys.stderr)
                return 1
            time.sleep(1)


if __name__ == "__main__":
    sys.exit(main())
