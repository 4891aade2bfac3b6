"""Downloads against every fault of a server, the network and the disk."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from hybridnets.errors import HnxError
from hybridnets.weights import UPSTREAM, WeightsEntry, pin, verified
from hybridnets.weights.download import Policy, download
from tests.hybridnets.weights.servers import Faults, serve

BODY = b"PK\x03\x04" + os.urandom(1_000_000)
DIGEST = hashlib.sha256(BODY).hexdigest()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def faults() -> Faults:
    return Faults(BODY)


@pytest.fixture
def url(faults: Faults) -> Iterator[str]:
    with serve(faults) as address:
        yield address


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def policy(waits: list[float]) -> Policy:
    return Policy(timeout_s=5, sleep=waits.append)


def entry(url: str, *, digest: str | None = DIGEST, size: int | None = len(BODY)) -> WeightsEntry:
    return replace(UPSTREAM, name="a", file="a.pth", url=url, sha256=digest, bytes=size)


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name not in ("a.pth", ".a.pth.lock"))


def test_a_file_arrives_whole_and_is_not_fetched_twice(
    tmp_path: Path, url: str, faults: Faults, policy: Policy
) -> None:
    seen: list[tuple[int, int | None]] = []
    path = download(entry(url), tmp_path / "new", policy=policy, on_progress=lambda *now: seen.append(now))
    assert path.read_bytes() == BODY
    assert seen[0] == (0, len(BODY))
    assert seen[-1] == (len(BODY), len(BODY))
    assert leftovers(path.parent) == []
    assert download(entry(url), tmp_path / "new") == path
    assert len(faults.requests) == 1
    download(entry(url), tmp_path / "new", again=True)
    assert len(faults.requests) == 2


def test_a_broken_connection_goes_on_where_it_stopped(
    tmp_path: Path, url: str, faults: Faults, policy: Policy, waits: list[float]
) -> None:
    faults.cut = [300_000, 300_000, None]
    notes: list[str] = []
    path = download(entry(url), tmp_path, policy=policy, on_note=notes.append)
    assert path.read_bytes() == BODY
    assert [request.get("range") for request in faults.requests] == [None, "bytes=300000-", "bytes=600000-"]
    assert faults.requests[1]["if-range"] == '"v1"'
    assert waits == [1.0, 1.0]  # a try that brought something is no failure in a row
    assert "broke off" in notes[0]
    assert "trying again" in notes[0]


def test_another_process_goes_on(tmp_path: Path, url: str, faults: Faults, waits: list[float]) -> None:
    faults.cut = [400_000, None]
    with pytest.raises(HnxError, match=r"goes on after the 0\.4 MB"):
        download(entry(url), tmp_path, policy=Policy(attempts=1, sleep=waits.append))
    assert leftovers(tmp_path) == ["a.pth.part", "a.pth.part.json"]
    assert download(entry(url), tmp_path).read_bytes() == BODY
    assert faults.requests[1]["range"] == "bytes=400000-"


def test_a_server_that_ignores_ranges_sends_all_again(tmp_path: Path, url: str, faults: Faults, policy: Policy) -> None:
    faults.cut, faults.ranges = [300_000, None], False
    assert download(entry(url), tmp_path, policy=policy).read_bytes() == BODY
    assert "range" in faults.requests[1]


def test_a_file_replaced_meanwhile_is_not_joined(tmp_path: Path, url: str, faults: Faults, policy: Policy) -> None:
    faults.cut = [300_000, None]
    other = b"PK\x03\x04" + os.urandom(900_000)

    def swap(number: int) -> None:
        if number == 1:
            faults.body, faults.etag = other, '"v2"'

    faults.before = swap
    path = download(entry(url, digest=None, size=None), tmp_path, policy=policy)
    assert path.read_bytes() == other


@pytest.mark.parametrize("digest", [None, hashlib.sha256(b"PK\x03\x04" + bytes(900_000)).hexdigest()])
def test_nor_by_a_server_that_ignores_if_range(
    tmp_path: Path, url: str, faults: Faults, policy: Policy, digest: str | None
) -> None:
    faults.cut, faults.if_range = [300_000, None], False
    other = b"PK\x03\x04" + bytes(900_000)

    def swap(number: int) -> None:
        if number == 1:
            faults.body, faults.etag = other, '"v2"'

    faults.before = swap
    path = download(entry(url, digest=digest, size=None), tmp_path, policy=policy)
    assert path.read_bytes() == other
    assert [request.get("range") for request in faults.requests] == [None, "bytes=300000-", None]


def test_pieces_that_do_not_fit_are_fetched_anew_once(tmp_path: Path, url: str, faults: Faults, policy: Policy) -> None:
    faults.cut = [300_000, None]
    with pytest.raises(HnxError):
        download(entry(url), tmp_path, policy=Policy(attempts=1))
    (tmp_path / "a.pth.part").write_bytes(bytes(300_000))
    assert download(entry(url), tmp_path, policy=policy).read_bytes() == BODY
    assert [request.get("range") for request in faults.requests] == [None, "bytes=300000-", None]


def test_a_part_nobody_vouches_for_is_dropped(tmp_path: Path, url: str, faults: Faults, policy: Policy) -> None:
    (tmp_path / "a.pth.part").write_bytes(BODY[:1000])
    assert download(entry(url, digest=None), tmp_path, policy=policy).read_bytes() == BODY
    assert "range" not in faults.requests[0]


def test_a_server_without_validators_is_not_resumed_without_a_digest(tmp_path: Path, url: str, faults: Faults) -> None:
    faults.etag, faults.cut = None, [300_000, None]
    with pytest.raises(HnxError):
        download(entry(url, digest=None), tmp_path, policy=Policy(attempts=1))
    assert download(entry(url, digest=None), tmp_path).read_bytes() == BODY
    assert "range" not in faults.requests[1]


def test_what_is_complete_is_not_asked_for_again(tmp_path: Path, url: str, faults: Faults, policy: Policy) -> None:
    faults.cut = [300_000, None]
    with pytest.raises(HnxError):
        download(entry(url), tmp_path, policy=Policy(attempts=1))
    (tmp_path / "a.pth.part").write_bytes(BODY)  # killed before the last step
    assert download(entry(url), tmp_path, policy=policy).read_bytes() == BODY


def test_a_part_that_is_too_long_starts_anew(tmp_path: Path, url: str, faults: Faults, policy: Policy) -> None:
    faults.cut = [300_000, None]
    with pytest.raises(HnxError):
        download(entry(url), tmp_path, policy=Policy(attempts=1))
    (tmp_path / "a.pth.part").write_bytes(BODY + b"more")
    assert download(entry(url), tmp_path, policy=policy).read_bytes() == BODY


def test_another_part_than_asked_for_starts_anew(tmp_path: Path, url: str, faults: Faults, policy: Policy) -> None:
    faults.cut, faults.shift = [300_000, None], 7
    assert download(entry(url), tmp_path, policy=policy).read_bytes() == BODY
    assert len(faults.requests) == 3


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_accidents_are_tried_again(
    tmp_path: Path, url: str, faults: Faults, policy: Policy, waits: list[float], code: int
) -> None:
    faults.codes = [code, code]
    assert download(entry(url), tmp_path, policy=policy).read_bytes() == BODY
    assert waits == [1.0, 2.0]


def test_the_server_may_name_the_wait(
    tmp_path: Path, url: str, faults: Faults, policy: Policy, waits: list[float]
) -> None:
    faults.codes, faults.headers = [503, 503, 503], {"Retry-After": "17"}
    download(entry(url), tmp_path, policy=policy)
    assert waits == [17.0, 17.0, 17.0]
    assert Policy().wait(9, None) == 60.0
    assert Policy().wait(1, 1e9) == 60.0


def test_it_gives_up_after_the_tries(
    tmp_path: Path, url: str, faults: Faults, policy: Policy, waits: list[float]
) -> None:
    faults.codes = [500] * 9
    with pytest.raises(HnxError, match="Cannot download a") as caught:
        download(entry(url), tmp_path, policy=policy)
    assert len(faults.requests) == 5
    assert waits == [1.0, 2.0, 4.0, 8.0]
    assert "500" in caught.value.why
    assert "hnx weights path a" in caught.value.fix
    assert str(tmp_path / "a.pth") in caught.value.fix


@pytest.mark.parametrize(
    ("code", "word"), [(404, "no such file"), (403, "refuses"), (401, "password"), (410, "withdrawn"), (418, "")]
)
def test_a_plain_no_is_not_asked_again(
    tmp_path: Path, url: str, faults: Faults, policy: Policy, code: int, word: str
) -> None:
    faults.codes = [code]
    with pytest.raises(HnxError) as caught:
        download(entry(url), tmp_path, policy=policy)
    assert str(code) in caught.value.why
    assert word in caught.value.why
    assert len(faults.requests) == 1
    assert leftovers(tmp_path) == []


def test_another_size_than_recorded(tmp_path: Path, url: str, policy: Policy) -> None:
    with pytest.raises(HnxError, match="not the one it should be") as caught:
        download(entry(url, size=5), tmp_path, policy=policy)
    assert f"{len(BODY)} bytes" in caught.value.why
    assert not (tmp_path / "a.pth").exists()


def test_more_than_announced(tmp_path: Path, url: str, faults: Faults, policy: Policy) -> None:
    faults.length, faults.extra = False, b"tail"
    with pytest.raises(HnxError, match="more than the"):
        download(entry(url), tmp_path, policy=policy)
    assert leftovers(tmp_path) == []


def test_another_content_than_recorded(tmp_path: Path, url: str, faults: Faults, policy: Policy) -> None:
    faults.body = b"PK\x03\x04" + bytes(len(BODY) - 4)
    with pytest.raises(HnxError, match="not the file it should be") as caught:
        download(entry(url), tmp_path, policy=policy)
    assert DIGEST in caught.value.why
    assert leftovers(tmp_path) == []
    assert not (tmp_path / "a.pth").exists()
    assert len(faults.requests) == 1


@pytest.mark.parametrize("body", [b"<!doctype html>log in", b""])
def test_what_is_no_checkpoint_is_not_kept(
    tmp_path: Path, url: str, faults: Faults, policy: Policy, body: bytes
) -> None:
    faults.body = body
    with pytest.raises(HnxError, match="no checkpoint"):
        download(entry(url, digest=None, size=None), tmp_path, policy=policy)
    assert leftovers(tmp_path) == []


def test_a_login_page(tmp_path: Path, url: str, faults: Faults, policy: Policy) -> None:
    faults.content_type = "text/html; charset=utf-8"
    with pytest.raises(HnxError, match="Cannot download") as caught:
        download(entry(url), tmp_path, policy=policy)
    assert "web page" in caught.value.why


def test_the_first_download_is_pinned(tmp_path: Path, url: str, faults: Faults, policy: Policy) -> None:
    unknown = entry(url, digest=None, size=None)
    path = download(unknown, tmp_path, policy=policy)
    assert pin(path).read_text() == f"{DIGEST}  a.pth\n"
    subprocess.run(["sha256sum", "-c", "a.pth.sha256"], cwd=tmp_path, check=True, capture_output=True)
    faults.body = b"PK\x03\x04" + bytes(100)
    with pytest.raises(HnxError, match="not the file") as caught:
        download(unknown, tmp_path, policy=policy, again=True)
    assert str(pin(path)) in caught.value.why
    assert "remove" in caught.value.fix
    assert path.read_bytes() == BODY  # the old one stays
    pin(path).unlink()
    download(unknown, tmp_path, policy=policy, again=True)
    assert path.read_bytes() == faults.body


def test_no_network(tmp_path: Path, policy: Policy, waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(HnxError, match="Cannot download a") as caught:
        download(entry("https://example.invalid/a.pth"), tmp_path, policy=policy)
    assert "no network" in caught.value.why
    assert "copy it to" in caught.value.fix
    assert "https_proxy" in caught.value.fix
    assert waits == [1.0, 2.0]


def test_nobody_listens(tmp_path: Path, policy: Policy) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{held.getsockname()[1]}/a.pth"
        with pytest.raises(HnxError, match="Cannot download") as caught:
            download(entry(address), tmp_path, policy=policy)
    assert "no connection" in caught.value.why


def test_a_server_that_falls_silent(tmp_path: Path, url: str, faults: Faults, waits: list[float]) -> None:
    release = threading.Event()
    faults.before = lambda number: None if number else (release.wait(10), None)[1]
    policy = Policy(timeout_s=0.3, sleep=lambda wait: (waits.append(wait), release.set())[0])
    assert download(entry(url), tmp_path, policy=policy).read_bytes() == BODY
    assert waits == [1.0]


def test_a_certificate_nobody_trusts(tmp_path: Path, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    import ssl
    import urllib.error
    import urllib.request

    reason = ssl.SSLCertVerificationError(1, "certificate verify failed")
    reason.verify_message = "self-signed certificate"

    def fail(*_: object, **__: object) -> None:
        raise urllib.error.URLError(reason)

    monkeypatch.setattr(urllib.request.OpenerDirector, "open", fail)
    with pytest.raises(HnxError, match="Refused to download") as caught:
        download(entry("https://example.invalid/a.pth"), tmp_path, policy=policy)
    assert "self-signed" in caught.value.why
    assert "SSL_CERT_FILE" in caught.value.fix


def test_redirections_are_followed(tmp_path: Path, url: str, faults: Faults, policy: Policy) -> None:
    faults.location, faults.cut = "/moved", [None, 300_000, None]
    assert download(entry(url), tmp_path, policy=policy).read_bytes() == BODY
    assert [request["path"] for request in faults.requests] == ["/weights.pth", "/moved"] * 2
    assert faults.requests[3]["range"] == "bytes=300000-"


def test_but_not_out_of_encryption() -> None:
    from urllib.request import Request

    from hybridnets.weights.answers import _NoDowngrade

    handler = _NoDowngrade()
    with pytest.raises(HnxError, match="Refused"):
        handler.redirect_request(Request("https://a.org/x"), None, 302, "", {}, "http://b.org/x")
    assert handler.redirect_request(Request("https://a.org/x"), None, 302, "", {}, "https://b.org/x").host == "b.org"


def test_proxies_come_from_the_environment(
    tmp_path: Path, url: str, faults: Faults, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", url.rpartition("/")[0])
    path = download(entry("http://example.invalid/there.pth"), tmp_path, policy=policy)
    assert path.read_bytes() == BODY
    assert faults.requests[0]["path"] == "http://example.invalid/there.pth"


@pytest.mark.parametrize("proxy", ["http:/nowhere", "http://host:port", "http://[::1"])
def test_a_proxy_that_is_none(tmp_path: Path, policy: Policy, monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(HnxError, match="Cannot download") as caught:
        download(entry("http://example.invalid/there.pth"), tmp_path, policy=policy)
    assert "proxy" in f"{caught.value.why} {caught.value.fix}"


def test_a_disk_without_space_is_known_before(
    tmp_path: Path, url: str, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(HnxError, match="Not enough space") as caught:
        download(entry(url), tmp_path, policy=policy)
    assert "1.0 MB are missing" in caught.value.why
    assert "HNX_CACHE" in caught.value.fix


def test_a_disk_that_fills_up_keeps_what_has_arrived(
    tmp_path: Path, url: str, faults: Faults, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []

    def full(handle: int) -> None:
        synced.append(handle)
        if len(synced) > 1:  # the notes still had a place
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        faults.cut = [500_000, None]
        with pytest.raises(HnxError, match="Cannot write") as caught:
            download(entry(url), tmp_path, policy=policy)
    assert "disk is full" in caught.value.why
    assert "--output" in caught.value.fix
    assert download(entry(url), tmp_path, policy=policy).read_bytes() == BODY
    assert faults.requests[1]["range"] == "bytes=500000-"


def test_a_folder_that_is_a_file(tmp_path: Path, url: str, policy: Policy) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HnxError, match="Cannot write"):
        download(entry(url), tmp_path / "file" / "below", policy=policy)


def _process(url: str, folder: Path) -> None:
    download(entry(url), folder)


def test_two_processes_fetch_it_once(tmp_path: Path, url: str, faults: Faults) -> None:
    faults.before = lambda _: time.sleep(0.5)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_process, args=(url, tmp_path)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(faults.requests) == 1
    assert (tmp_path / "a.pth").read_bytes() == BODY


def test_one_that_is_killed_leaves_no_lock(tmp_path: Path, url: str, faults: Faults) -> None:
    faults.cut = [300_000, None]
    started = threading.Event()
    faults.before = lambda number: None if number else started.set()
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom dataclasses import replace\n"
        "from hybridnets.weights import UPSTREAM\nfrom hybridnets.weights.download import Policy, download\n"
        f"entry = replace(UPSTREAM, name='a', file='a.pth', url={url!r}, sha256={DIGEST!r}, bytes={len(BODY)})\n"
        "download(entry, Path(sys.argv[1]), policy=Policy(sleep=lambda _: time.sleep(60)))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    part = tmp_path / "a.pth.part"
    for _ in range(300):
        if part.exists() and part.stat().st_size == 300_000:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert not (tmp_path / "a.pth").exists()
    assert download(entry(url), tmp_path).read_bytes() == BODY
    assert faults.requests[-1]["range"] == "bytes=300000-"


def test_a_hostile_note_beside_a_part(tmp_path: Path, url: str, faults: Faults, policy: Policy) -> None:
    (tmp_path / "a.pth.part").write_bytes(BODY[:1000])
    for text in ("[]", "{", '{"url": 3}', f'{{"url": "{url}", "validator": "x\\r\\nHost: evil", "total": "a"}}'):
        (tmp_path / "a.pth.part.json").write_text(text)
        assert download(entry(url), tmp_path, policy=policy, again=True).read_bytes() == BODY
    assert all("if-range" not in request for request in faults.requests)


def test_copied_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HNX_CACHE", str(tmp_path))
    known = entry("https://example.invalid/a.pth")
    with pytest.raises(HnxError, match="not on this machine yet") as caught:
        verified(known)
    assert "hnx weights download a" in caught.value.fix
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "a.pth").write_bytes(BODY)
    assert verified(known) == tmp_path / "weights" / "a.pth"
    assert download(known) == tmp_path / "weights" / "a.pth"  # without network


@pytest.mark.parametrize("values", [{"attempts": 0}, {"first_wait_s": -1.0}, {"timeout_s": 0.0}])
def test_impossible_policies(values: dict[str, float]) -> None:
    with pytest.raises(HnxError):
        Policy(**values)  # type: ignore[arg-type]
