import hashlib
import http.client
import http.server
import shutil
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tempseg_jax.data.sources import download, voc
from tempseg_jax.data.sources.download import Remote, fetch
from tests import miniatures

CONTENT = bytes(range(256)) * 2000


class Server(http.server.ThreadingHTTPServer):
    """Serves `content`, at most `limit` bytes a request, with or without ranges."""

    limit, ranges = None, True

    def __init__(self):
        self.requests = []
        self.files = {"archive.tar": CONTENT}
        super().__init__(("127.0.0.1", 0), Handler)

    def remote(self, name="archive.tar"):
        content = self.files.get(name, b"not there")
        url = f"http://127.0.0.1:{self.server_port}/{name}"
        return Remote(url, len(content), hashlib.sha256(content).hexdigest())


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.requests.append(asked)
        content = self.server.files.get(self.path.removeprefix("/"))
        if content is None:
            self.send_error(404)
            return
        start = 0
        if asked and self.server.ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        stop = None if self.server.limit is None else start + self.server.limit
        self.wfile.write(content[start:stop])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_file_is_downloaded_once(server, tmp_path):
    for _ in range(2):
        path = fetch(server.remote(), folder=tmp_path / "new")
        assert path.name == "archive.tar" and path.read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_an_interrupted_download_is_resumed(server, tmp_path):
    server.limit = 200_000
    for _ in range(2):
        with pytest.raises(OSError, match=r"archive.tar: ended after .* run again"):
            fetch(server.remote(), folder=tmp_path)
        assert not (tmp_path / "archive.tar").exists()
    assert fetch(server.remote(), folder=tmp_path).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=200000-", "bytes=400000-"]


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(104, "Connection reset by peer"),
        ssl.SSLError(1, "bad record mac"),
        TimeoutError("timed out"),
        http.client.IncompleteRead(b""),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_connection_that_breaks_is_named_and_resumed(
    server, tmp_path, monkeypatch, error
):
    read = http.client.HTTPResponse.read

    def read_once_and_fail(response, amount):
        if response.length < len(CONTENT):
            raise error
        return read(response, 200_000)

    with monkeypatch.context() as patch:
        patch.setattr(http.client.HTTPResponse, "read", read_once_and_fail)
        with pytest.raises(
            OSError, match=r"http.*archive.tar: .*; run again to resume"
        ):
            fetch(server.remote(), folder=tmp_path)
    assert fetch(server.remote(), folder=tmp_path).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=200000-"]


def test_a_server_that_cannot_resume_is_asked_from_the_start(server, tmp_path):
    (tmp_path / "archive.tar.part").write_bytes(CONTENT[:1000])
    server.ranges = False
    assert fetch(server.remote(), folder=tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("change", ["corrupted", "longer"])
def test_another_file_is_refused_and_removed(server, tmp_path, change):
    remote = server.remote()
    changed = {"corrupted": CONTENT[:-1] + b"\0", "longer": CONTENT + b"\0" * 500}
    server.files["archive.tar"] = changed[change]
    with pytest.raises(ValueError, match=r"not the expected file.*put it at"):
        fetch(remote, folder=tmp_path)
    assert [p.name for p in tmp_path.iterdir() if p.suffix != ".lock"] == []


def test_a_corrupted_part_is_not_resumed_for_ever(server, tmp_path):
    (tmp_path / "archive.tar.part").write_bytes(b"\0" * 1000)
    with pytest.raises(ValueError, match="not the expected file"):
        fetch(server.remote(), folder=tmp_path)
    assert fetch(server.remote(), folder=tmp_path).read_bytes() == CONTENT


def test_a_file_of_the_wrong_size_is_fetched_again(server, tmp_path):
    (tmp_path / "archive.tar").write_bytes(b"half")
    assert fetch(server.remote(), folder=tmp_path).read_bytes() == CONTENT


def test_an_absent_file_or_server_is_named_with_the_remedy(server, tmp_path):
    with pytest.raises(OSError, match=r"absent.tar: .*get it by hand and put it at"):
        fetch(server.remote("absent.tar"), folder=tmp_path)
    nobody = Remote("http://127.0.0.1:9/a.tar", 1, "")
    with pytest.raises(OSError, match=r"a.tar: .*get it by hand"):
        fetch(nobody, folder=tmp_path)


def test_a_disk_that_is_too_small_is_noticed_before(server, tmp_path, monkeypatch):
    usage = shutil._ntuple_diskusage(10**9, 10**9, 1000)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="needs 512,000 bytes more, but 1,000 are free"):
        fetch(server.remote(), folder=tmp_path)
    assert server.requests == []


def test_two_processes_at_once_download_once(server, tmp_path):
    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(lambda _: fetch(server.remote(), folder=tmp_path), "ab"))
    assert paths[0] == paths[1] and paths[0].read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_without_a_folder_voc_and_sbd_are_downloaded(server, tmp_path, monkeypatch):
    miniatures.write_tar(
        tmp_path / "VOCtrainval_11-May-2012.tar",
        miniatures.voc_members(["t1"], ["v1"], ["o1"]),
        prefix="VOCdevkit/VOC2012/",
    )
    miniatures.write_tar(
        tmp_path / "benchmark.tgz",
        miniatures.sbd_members(["t1", "o1"], ["v1"]),
        prefix="benchmark_RELEASE/dataset/",
        mode="w:gz",
    )
    for path in tmp_path.iterdir():
        server.files[path.name] = path.read_bytes()
    names = {"TRAINVAL": "VOCtrainval_11-May-2012.tar", "BENCHMARK": "benchmark.tgz"}
    for name, archive in names.items():
        monkeypatch.setattr(voc, name, server.remote(archive))

    dataset = voc.Voc(
        manual_dir=None, download_dir=tmp_path / "downloads", allow_missing=True
    )
    dataset.fingerprint()
    assert server.requests == []  # nothing is needed to find what is prepared
    assert [entry.id for entry in dataset.entries("extra")] == ["o1"]
    assert len(server.requests) == 2
