"""Exit 0 when the address answers 200 within three seconds: `python healthcheck.py URL`."""

import sys
import urllib.error
import urllib.request

TIMEOUT_S = 3


def healthy(url: str) -> bool:
    """Whether `url` answers 200; redirects and errors count as no."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310 - our own argument
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


if __name__ == "__main__":
    raise SystemExit(0 if healthy(sys.argv[1]) else 1)
