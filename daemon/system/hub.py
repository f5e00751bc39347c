"""The hub's own library: the only room that knows it, used in the process of one pull.

Where to is the config's word alone: a client names an owner, a repository and a file, which are checked before and
quoted here. The hub may redirect, as it does to where its files lie: only to https, or to the scheme that the config
has; the token stays at the address that the config names.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import httpx2
from huggingface_hub import HfApi, get_session, hf_hub_url, set_client_factory
from huggingface_hub.errors import HfHubHTTPError

from ..domain.errors import Code
from ..domain.pull import MAX_FILES, SIDE_FILES, HubFile, Listing, is_digest, is_safe_path

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT_S = 20.0  # without a byte
MAX_REDIRECTS = 5
MAX_WAIT_S = 60.0  # that the hub may ask for; a longer one is the client's to wait
BUSY = (408, 429, 500, 502, 503, 504)
KINDS = (".gguf", ".onnx", ".onnx.data")  # and .onnx_data, .onnx_data_1


class HubError(Exception):
    """The hub will not or cannot, in a sentence for a client."""

    def __init__(self, code: Code, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s


class Busy(HubError):
    """It may work in a moment."""


class Hub:
    """One repository as it was at one commit."""

    def __init__(self, endpoint: str, token: str) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._token: str | bool = token or False  # False: not the one of whoever runs this, either
        self._schemes = {"https", httpx2.URL(self._endpoint).scheme}
        set_client_factory(self._client)

    def list(self, repo: str, revision: str) -> Listing:
        """What a model could be made of. Raises HubError."""
        with _told(f"{repo} at {revision}"):
            api = HfApi(endpoint=self._endpoint, token=self._token, library_name="inferd")
            info = api.model_info(repo, revision=revision, files_metadata=True, timeout=TIMEOUT_S)
            files = [file for sibling in info.siblings or () if (file := _file(sibling)) is not None]
            if not info.sha or not is_digest(info.sha):
                raise HubError(Code.PULL_FAILED, "the hub does not say which commit that is")
        return Listing(info.sha, tuple(files[:MAX_FILES]))

    @contextlib.contextmanager
    def open(self, repo: str, commit: str, name: str, start: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        """(where they begin, the bytes from there); that is 0 where the hub gives only the whole. Raises HubError."""
        url = hf_hub_url(repo, name, revision=commit, endpoint=self._endpoint)
        headers = {"user-agent": "inferd", "accept-encoding": "identity"}
        headers |= {"authorization": f"Bearer {self._token}"} if self._token else {}
        headers |= {"range": f"bytes={start}-"} if start else {}
        with _told(name), get_session().stream("GET", url, headers=headers, timeout=TIMEOUT_S) as response:
            if response.status_code == 416:  # it has fewer bytes than are here
                yield 0, iter(())
                return
            if response.status_code >= 400:
                raise _refused(name, response)
            resumed = response.status_code == 206
            if resumed and not response.headers.get("content-range", "").startswith(f"bytes {start}-"):
                raise HubError(Code.PULL_FAILED, f"{name}: the hub answers with other bytes than were asked for")
            yield (start if resumed else 0), response.iter_bytes()

    def _client(self) -> httpx2.Client:
        hooks: dict[str, list[Any]] = {"request": [lambda request: self.check(str(request.url))]}
        return httpx2.Client(event_hooks=hooks, follow_redirects=True, max_redirects=MAX_REDIRECTS, timeout=TIMEOUT_S)

    def check(self, url: str) -> None:
        """Of each request that is about to be made, and of each redirect. Raises HubError."""
        scheme = httpx2.URL(url).scheme
        if scheme not in self._schemes:
            raise HubError(Code.PULL_FAILED, f"the hub redirects to {scheme[:16]}, which is not followed")


def _file(sibling: Any) -> HubFile | None:
    """None for what is of no use here, or has a name that nobody honest gives."""
    name, n_bytes = sibling.rfilename, sibling.size
    if not isinstance(name, str) or not is_safe_path(name) or type(n_bytes) is not int or n_bytes < 0:
        return None
    lower, base = name.lower(), name.rpartition("/")[2]
    sides = {side.rpartition("/")[2] for side in SIDE_FILES}
    if not (lower.endswith(KINDS) or ".onnx_data" in lower or base in sides):
        return None
    digest = sibling.lfs.sha256 if sibling.lfs is not None else sibling.blob_id
    return HubFile(name, n_bytes, digest if isinstance(digest, str) and is_digest(digest) else "")


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Failures of the library, as ours. What it says may hold addresses; of that nothing is passed on."""
    try:
        yield
    except HubError:
        raise
    except HfHubHTTPError as error:
        raise _refused(what, error.response) from None
    except httpx2.TooManyRedirects:
        raise HubError(Code.PULL_FAILED, f"{what}: the hub redirects in circles") from None
    except httpx2.TransportError as error:
        how = (
            "does not answer in time" if isinstance(error, httpx2.TimeoutException) else "cannot be reached, or hung up"
        )
        raise Busy(Code.PULL_FAILED, f"{what}: the hub {how}") from None
    except OSError:
        raise
    except Exception as error:  # its answer is none that the library understands
        raise HubError(Code.PULL_FAILED, f"{what}: the hub's answer makes no sense ({type(error).__name__})") from None


def _refused(what: str, response: httpx2.Response) -> HubError:
    status = response.status_code
    if status in (401, 403):
        text = f"{what}: the hub wants a token for that which is allowed to read it, or there is no such repository"
        return HubError(Code.PULL_FAILED, f"{text}; see [hub] token_file in the config")
    if status == 404:
        return HubError(Code.NOT_FOUND, f"the hub has no {what}")
    if status in BUSY:
        wait_s = _retry_after_s(response)
        text = f"{what}: the hub is busy (HTTP {status})"
        if wait_s is not None and wait_s > MAX_WAIT_S:
            return HubError(Code.PULL_FAILED, text, wait_s)
        return Busy(Code.PULL_FAILED, text, wait_s)
    return HubError(Code.PULL_FAILED, f"{what}: the hub refuses with HTTP {status}")


def _retry_after_s(response: httpx2.Response) -> float | None:
    """In seconds; the form with a date is left to the usual pause."""
    given = response.headers.get("retry-after", "").strip()
    return float(given) if given.isascii() and given.isdecimal() and len(given) < 8 else None
