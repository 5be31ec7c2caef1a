"""Ends with 0 if the server in this container can work, for a health check without curl: `healthy.py [PORT]`."""

import http.client
import sys

_SECONDS = 5


def main() -> int:
    """Ask /readyz; the exit status."""
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        print(answer.read(1_000).decode("utf-8", "replace"))
    except (OSError, http.client.HTTPException) as error:
        print(f"no answer on port {port}: {error}")
        return 1
    return 0 if answer.status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
