"""Errors of the Hub as one-line `EditError`s with a remedy, and calls that are repeated while it is busy."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from huggingface_hub import errors

from hf_ftedit.errors import EditError, one_line

Result = TypeVar("Result")

REMEDIES = {  # by the status of the answer
    401: "log in with `hf auth login`, or give a valid token, and check the name",
    403: "give a token that may do this, or use a namespace of your own",
    404: "check the name, and that the token may see it",
    412: "somebody else changed it meanwhile; try again",
    429: "too many requests; wait a while and try again",
}
WAITS = (1, 5)  # seconds before another try; uploads and downloads of single files have their own, longer ones


@contextmanager
def hub_errors(name: str) -> Iterator[None]:
    """Raise the errors of the Hub's client about the repository `name` as [`~hf_ftedit.EditError`]s."""
    try:
        yield
    except EditError:
        raise
    except (errors.HTTPError, OSError, ValueError, RuntimeError) as error:  # all that the client raises
        # The upload of a large file hides what happened behind a RuntimeError of its own.
        reason = error.__cause__ if type(error) is RuntimeError else error
        match reason:  # in this order: the first ones are kinds of the later ones
            case errors.HfHubHTTPError():
                message = f"{name}: {_refusal(reason)}"
            case errors.LocalTokenNotFoundError():
                message = f"{name}: there is no token of the Hub; {REMEDIES[401]}"
            case errors.HFValidationError():
                message = f"{name!r}: no such folder, nor a name of a repository such as 'user/my-edits'"
            case errors.OfflineModeIsEnabled():
                message = f"{name}: HF_HUB_OFFLINE is set; unset it to reach the Hub"
            case errors.LocalEntryNotFoundError():
                cause = one_line(reason.__cause__ or reason)
                message = f"{name!r}: no such folder, nor in the cache, and the Hub does not answer ({cause})"
            case errors.HTTPError():
                message = f"{name}: the Hub cannot be reached ({one_line(reason)}); check the network, try again"
            case ValueError() if "README.md" in str(reason):  # its metadata are checked before the commit
                message = f"{name}: {one_line(reason)}; correct README.md in the folder"
            case _:  # what is none of the client's own
                raise
        raise EditError(message) from error


def _refusal(error: Any) -> str:
    status = error.response.status_code
    reason = " ".join((error.server_message or "no reason given").split()).rstrip(".")
    remedy = REMEDIES.get(status, "the Hub has a problem; try again later" if status >= 500 else "see the reason")
    return f"the Hub refuses with {status} ({reason}); {remedy}"


def retried(call: Callable[[], Result]) -> Result:
    """The result of `call`, which is repeated after a while where the Hub is busy or the connection broke."""
    # Not `http_backoff` of huggingface_hub: it repeats one request, and a commit must be made of a fresh head.
    for wait in WAITS:
        try:
            return call()
        except errors.HTTPError as error:
            if not may_pass(error):
                raise
        time.sleep(wait)
    return call()


def may_pass(error: BaseException) -> bool:
    """Tell errors that another try may pass; where nothing answers at all, there is no network."""
    response = getattr(error, "response", None)
    if response is None:
        return isinstance(error, errors.HTTPError) and "Connect" not in type(error).__name__
    return response.status_code in (408, 429) or response.status_code >= 500
