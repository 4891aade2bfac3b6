"""Answers of web servers, good and bad ones, in the words of a download."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from hybridnets.errors import HnxError
from hybridnets.weights.registry import WeightsEntry

__all__ = ["Answer", "StaleError", "TransientError", "open_answer"]

_RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)")
_WHOLE = re.compile(r"bytes \*/(\d{1,18})")
# the rest of 4xx is an answer, not an accident
_TRANSIENT_CODES = {408, 425, 429, 500, 502, 503, 504}
_WORDS = {
    401: "it asks for a name and a password",
    403: "it refuses",
    404: "there is no such file",
    407: "the proxy asks for a name and a password",
    410: "the file has been withdrawn",
}


@dataclass(frozen=True)
class Answer:
    """A server's answer whose body follows.

    Attributes:
        body: to be read with `read1`.
        start: index of the first byte that follows; 0 where the server sends the whole file.
        total: bytes of the whole file, None where the server does not say.
        validator: strong ETag or Last-Modified, which tells whether the file is still the same.
        complete: everything had arrived before; no body follows.
    """

    body: Any
    start: int
    total: int | None
    validator: str | None
    complete: bool = False


class TransientError(Exception):
    """A failure that another try may mend.

    Attributes:
        retry_after: seconds the server asked to wait, if it did.
        offline: no connection came about at all.
    """

    def __init__(self, text: str, *, retry_after: float | None = None, offline: bool = False) -> None:
        super().__init__(text)
        self.retry_after, self.offline = retry_after, offline

    def explained(self, entry: WeightsEntry, target: Path, there: int) -> HnxError:
        """The user's error once nobody tries any more."""
        by_hand = (
            f"fetch {entry.url} on another machine, copy it to {target}, and hnx weights path {entry.name} finds it"
        )
        if self.offline:
            fix = f"check the network, and https_proxy if there is a proxy; or {by_hand}"
        else:
            kept = f", it goes on after the {there / 1e6:.1f} MB that are there" if there else ""
            fix = f"run the command again later{kept}; or {by_hand}"
        return HnxError(f"Cannot download {entry.name}", why=f"{self} ({entry.url})", fix=fix)


class StaleError(TransientError):
    """What has arrived is no part of the file: the next try starts anew."""


class _NoDowngrade(urllib.request.HTTPRedirectHandler):
    """Follows redirections, but not from https to http: anybody on the way could answer."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise HnxError(
                f"Refused to download {req.full_url}",
                why="the server sends on to an address without encryption",
                fix="try another network",
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@contextlib.contextmanager
def open_answer(request: urllib.request.Request, timeout_s: float, there: int) -> Iterator[Answer]:
    """Send a request and read the head of the answer.

    Args:
        request: with a Range header where bytes have arrived.
        timeout_s: of every wait for the network.
        there: bytes that have arrived.

    Raises:
        TransientError: another try may help.
        HnxError: it cannot.
    """
    try:
        # the default handlers take proxies from the environment
        response = urllib.request.build_opener(_NoDowngrade).open(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        with error:
            found = _WHOLE.fullmatch(error.headers.get("Content-Range") or "") if error.code == 416 else None
            # the server's words for "you have it all"
            if found is None or int(found[1]) != there or not there:
                _refuse(error, request.full_url)
        yield Answer(None, there, there, None, complete=True)
        return
    except urllib.error.URLError as error:
        raise _unreachable(error.reason, request.full_url) from error
    except ValueError as error:  # http.client.InvalidURL among them: our address is fine, a proxy's may not be
        raise HnxError(
            f"Cannot download {request.full_url}",
            why=f"the proxy of the environment cannot be used: {error}",
            fix="correct https_proxy or http_proxy, for example http://proxy.example.org:3128",
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(error, request.full_url) from error
    with response:
        yield _read_head(response, request.full_url, there)


def _read_head(response: Any, url: str, there: int) -> Answer:
    headers = response.headers
    if (headers.get("Content-Type") or "").startswith("text/html"):
        raise HnxError(
            f"Cannot download {url}",
            why="the answer is a web page, not a file: a login page of the network or of a proxy",
            fix="open any page in a browser of this network, log in, and try again",
        )
    etag = headers.get("ETag")
    # weak ones stand for "looks the same", which does not do for joining bytes
    validator = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")
    if response.status == 206:
        found = _RANGE.fullmatch(headers.get("Content-Range") or "")
        if found is None or int(found[1]) != there:
            raise StaleError("the server sent another part than the one asked for")
        return Answer(response, there, None if found[2] == "*" else int(found[2]), validator)
    length = headers.get("Content-Length") or ""
    return Answer(response, 0, int(length) if length.isdecimal() and len(length) < 19 else None, validator)


def _refuse(error: urllib.error.HTTPError, url: str) -> NoReturn:
    words = _WORDS.get(error.code, str(error.reason))
    if error.code == 416:
        raise StaleError("the server has no more than what is here, and that is not the file") from error
    if error.code in _TRANSIENT_CODES:
        after = error.headers.get("Retry-After") or ""
        asked = float(after) if after.isdecimal() and len(after) < 9 else None
        raise TransientError(f"the server answers {error.code} ({words})", retry_after=asked) from error
    raise HnxError(
        f"Cannot download {url}",
        why=f"the server answers {error.code}: {words}",
        fix="update hnx, where the address may have changed, or look for the file on the publisher's page",
    ) from error


def _unreachable(reason: object, url: str) -> Exception:
    if isinstance(reason, ssl.SSLCertVerificationError):
        return HnxError(
            f"Refused to download {url}",
            why=f"the server's certificate cannot be trusted: {reason.verify_message}",
            fix="where a proxy has a certificate of its own: SSL_CERT_FILE=/path/to/its.pem; else check the clock",
        )
    if isinstance(reason, socket.gaierror):
        return TransientError("the name of the server cannot be looked up: no network?", offline=True)
    text = str(reason) or type(reason).__name__
    return TransientError(f"no connection to the server: {text}", offline=True)
