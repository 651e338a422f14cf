"""Reading whole files from a folder or a URL, through fsspec."""

import time
from collections.abc import Callable
from typing import Any

from files.errors import InputError, UsageError
from files.untrusted import one_line

_WAITS = (0.5, 1, 2, 4, 8)  # seconds before another try
_SILENCE = 30  # seconds without a byte, after which a server is asked again
_PATIENT = (408, 429)  # HTTP's statuses of the 4xx that ask for another try


def is_url(place: str) -> bool:
    """Whether a place is a URL (https://..., s3://...) and no path."""
    return "://" in place


def fetch(place: str, most: int, check: Callable[[bytes], None] = lambda content: None) -> bytes:
    """The content of a file or a URL.

    What fails at a URL, a broken connection or a server's error, is tried again for a quarter of a minute and more.

    Args:
        most: bytes; of a longer file the beginning is returned, one byte longer than that.
        check: raises InputError for a content that is not whole; a URL's is then fetched again.

    Raises:
        InputError: nothing is there, or it cannot be read.
        UsageError: a URL of a kind that needs a package that is missing.
    """
    waits = iter(_WAITS if is_url(place) else ())
    while True:
        try:
            content = _read(place, most + 1)
            check(content)
            return content
        except FileNotFoundError:
            raise InputError(f"{place}: no such file") from None
        except UsageError:
            raise
        except Exception as error:  # each protocol has its own: aiohttp.ClientError, botocore's, OSError
            if _may_pass(error) and (wait := next(waits, None)) is not None:
                time.sleep(wait)
                continue
            if isinstance(error, InputError):
                raise
            tries = f" in {len(_WAITS) + 1} tries" if is_url(place) and _may_pass(error) else ""
            raise InputError(f"{place}: could not be read{tries} ({one_line(error)})") from None


def _may_pass(error: Exception) -> bool:
    """Whether another try may succeed: not where a server refuses the request."""
    status = getattr(error, "status", None)
    return not isinstance(status, int) or not 400 <= status < 500 or status in _PATIENT


def _read(place: str, most: int) -> bytes:
    if not is_url(place):
        with open(place, "rb") as stream:
            return stream.read(most)
    from fsspec.core import url_to_fs  # half a second, which trainings from files need not wait

    options: dict[str, Any] = {}
    try:
        if place.startswith(("http://", "https://")):
            import aiohttp

            timeout = aiohttp.ClientTimeout(total=None, sock_connect=_SILENCE, sock_read=_SILENCE)
            options = {"client_kwargs": {"timeout": timeout, "trust_env": True}}  # proxies, as other programs have them
        system, path = url_to_fs(place, **options)  # in each process and thread its own: fsspec keeps them apart
    except ImportError as error:
        raise UsageError(f"{place}: {one_line(error)}; pip install -r requirements-shards.txt reads http(s)") from None
    except ValueError as error:
        raise UsageError(f"{place}: {one_line(error)}") from None
    return system.cat_file(path, start=0, end=most)[:most]  # a server without ranges sends all
