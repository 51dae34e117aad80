"""The Hugging Face Hub where it can be reached, and its cache on this machine where it cannot."""

import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from threading import Thread
from typing import TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from robustify.errors import InputError, UnreachableError

T = TypeVar("T")

_PATIENCE = 1.5
"""Seconds in which a host must take a connection."""

_ANSWER = 5.0
"""Seconds in which a host that took the connection must answer."""

_PORTS = {"http": 80, "https": 443}


def from_hub(prefix: str) -> Callable[[Callable[[str], T]], Callable[[str], T]]:
    """Decorator of a function that loads a model by its name on the Hub, or from a folder.

    Where the Hub cannot be reached, the model is loaded from the cache alone, at once: the Hub's client would try for
    each file again and again, for a minute or more.

    Arguments:
        prefix: Beginning of names after which the repository follows; "" where each name is one.

    Raises:
        UnreachableError: If files are missing in the cache and cannot be fetched.
    """

    def decorator(load: Callable[[str], T]) -> Callable[[str], T]:
        @wraps(load)
        def loaded(name: str, /) -> T:
            return load(name) if _is_folder(name) else _load(load, name, prefix)

        return loaded

    return decorator


def _load(load: Callable[[str], T], name: str, prefix: str) -> T:
    """The model of a name on the Hub."""
    with _reached() as problem:
        if problem and name.startswith(prefix) and not _is_cached(name.removeprefix(prefix)):
            raise UnreachableError(_advice(name, problem))  # before a library is imported, which takes seconds
        try:
            return load(name)
        except InputError as error:
            if not _lacks_files(error):
                raise
            raise UnreachableError(_advice(name, problem or "the Hub does not answer any more")) from error


def _is_cached(repository: str) -> bool:
    """Whether there are files of a repository, "org/name" or "org/name@revision", in the cache."""
    from huggingface_hub import constants

    folder = "--".join(("models", *repository.partition("@")[0].split("/")))
    return Path(constants.HF_HUB_CACHE, folder).is_dir()


def _is_folder(name: str) -> bool:
    return name.startswith(("local-dir:", "/", ".", "~")) or Path(name).is_dir()


@contextmanager
def _reached() -> Iterator[str | None]:
    """Gives why the Hub cannot be reached, and keeps its client from trying; None, and nothing changes, if it can."""
    from huggingface_hub import constants

    forbidden = constants.HF_HUB_OFFLINE
    problem = "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set" if forbidden else unreachable(constants.ENDPOINT)
    constants.HF_HUB_OFFLINE = problem is not None
    silenced = logging.root.manager.disable
    logging.disable(logging.CRITICAL if problem else silenced)  # libraries log what we say
    try:
        yield problem
    finally:
        constants.HF_HUB_OFFLINE = forbidden
        logging.disable(silenced)


def unreachable(address: str) -> str | None:
    """Why there is no answer from an address, such as "https://huggingface.co"; None if there is one.

    A host that takes no connection is given up after `_PATIENCE` seconds. Proxies of the environment are used.
    """
    from huggingface_hub import get_session

    reason = _refusal(*_first_stop(address))
    if reason is None:
        try:
            get_session().head(address, timeout=_ANSWER)
        except Exception as error:  # of httpx or httpx2, whichever the Hub's client uses
            reason = str(error) or type(error).__name__
    return None if reason is None else f"{address} cannot be reached ({reason})"


def _first_stop(address: str) -> tuple[str, int]:
    """Host and port to connect to: the proxy where there is one for this address."""
    parts = urlsplit(address)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if proxy and not proxy_bypass(parts.hostname or ""):
        parts = urlsplit(proxy if "//" in proxy else f"http://{proxy}")
    return parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 443)


def _refusal(host: str, port: int) -> str | None:
    """Why a host takes no connection; a thread asks, since looking up its name cannot be given up otherwise."""
    reasons: list[str | None] = []

    def ask() -> None:
        try:
            socket.create_connection((host, port), timeout=_PATIENCE).close()
        except OSError as error:
            reasons.append(error.strerror or str(error))
        else:
            reasons.append(None)

    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    return reasons[0] if reasons else f"no connection within {_PATIENCE} seconds"


def _lacks_files(error: BaseException | None) -> bool:
    """Whether an error came from a file of the Hub that is not in its cache."""
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    while error is not None and not isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled):
        error = error.__cause__ or error.__context__
    return error is not None


def _advice(name: str, problem: str) -> str:
    from huggingface_hub import constants

    return (
        f"cannot get the files of {name!r}: {problem}, and not all of them are in the cache, "
        f"{str(constants.HF_HUB_CACHE)!r}.\n"
        "  Load the model once where there is a network, and copy the cache here. Or get a folder there, by\n"
        "  `hf download ORG/NAME --local-dir FOLDER`, and give the folder instead of the name."
    )
