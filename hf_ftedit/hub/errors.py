"""What the Hub refuses, or keeps from reaching it, told in one line with a remedy; and what is worth another try."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from hf_ftedit.errors import EditError, one_line

Result = TypeVar("Result")

# What to do about the statuses that the Hub answers with.
REMEDIES = {
    401: "log in with `hf auth login`, or give a valid token, and check the name",
    403: "give a token that may do this, or use a namespace of your own",
    404: "check the name, and that the token may see it",
    412: "somebody else changed it meanwhile; try again",
    429: "too many requests; wait a while and try again",
}
WAITS = (1, 2, 4, 8)  # seconds before another try


@contextmanager
def hub_errors(repo_id: str) -> Iterator[None]:
    """Whatever the Hub refuses, or keeps from reaching it, as one line that says what to do."""
    from huggingface_hub import errors

    try:
        yield
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        said = " ".join((error.server_message or "no reason given").split()).rstrip(".")
        remedy = REMEDIES.get(status, "the Hub has a problem; try again later" if status >= 500 else "see the reason")
        raise EditError(f"{repo_id}: the Hub refuses with {status} ({said}); {remedy}") from error
    except errors.LocalTokenNotFoundError as error:
        raise EditError(f"{repo_id}: there is no token of the Hub; {REMEDIES[401]}") from error
    except errors.HFValidationError as error:
        raise EditError(f"{repo_id!r}: no such folder, nor a name of a repository such as 'user/my-edits'") from error
    except errors.OfflineModeIsEnabled as error:
        raise EditError(f"{repo_id}: HF_HUB_OFFLINE is set; unset it to reach the Hub") from error
    except errors.LocalEntryNotFoundError as error:
        cause = one_line(error.__cause__ or error)
        raise EditError(
            f"{repo_id!r}: no such folder, nor in the cache, and the Hub does not answer ({cause})"
        ) from error
    except errors.HTTPError as error:
        raise EditError(
            f"{repo_id}: the Hub cannot be reached ({one_line(error)}); check the network, try again"
        ) from error
    except ValueError as error:
        if "README.md" not in str(error):
            raise
        raise EditError(f"{repo_id}: {one_line(error)}; correct README.md in the folder") from error


def patiently(call: Callable[[], Result]) -> Result:
    """`call`, again after a while where the Hub is busy or the connection broke; uploads do so by themselves."""
    from huggingface_hub.errors import HTTPError

    for wait in WAITS:
        try:
            return call()
        except HTTPError as error:
            if not may_pass(error):
                raise
            answer: Any = getattr(error, "response", None)
            asked = "" if answer is None else answer.headers.get("Retry-After", "")
            time.sleep(max(wait, min(int(asked), 60)) if asked.isdecimal() else wait)
    return call()


def may_pass(error: Any) -> bool:
    """Whether trying again may help; where nothing answers at all, there is no network."""
    from huggingface_hub.errors import HTTPError

    status = status_of(error)
    is_broken = status == 0 and isinstance(error, HTTPError) and "Connect" not in type(error).__name__
    return status in (408, 429) or status >= 500 or is_broken


def status_of(error: Any) -> int:
    """The status of an answer, 0 where none came."""
    response = getattr(error, "response", None)
    return 0 if response is None else response.status_code
