import hashlib
import http.client
import shutil
import ssl
from concurrent.futures import ThreadPoolExecutor

import pytest

from tempseg_jax.io import download
from tempseg_jax.io.download import RemoteFile
from tests import file_server

CONTENT = bytes(range(256)) * 2000
NAME = "archive.tar"


@pytest.fixture
def server():
    with file_server.serve({NAME: CONTENT}) as server:
        yield server


def remote_file(server, *, name=NAME, content=CONTENT, sized=True):
    return RemoteFile(
        server.url(name),
        algorithm="sha256",
        digest=hashlib.sha256(content).hexdigest(),
        size=len(content) if sized else None,
    )


def fetch(remote, folder):
    return download.fetch(remote, folder=folder, folder_setting="data.data_dir")


def names_without_locks(folder):
    return [path.name for path in folder.iterdir() if path.suffix != ".lock"]


@pytest.mark.parametrize("sized", [True, False])
def test_a_file_is_downloaded_once(server, tmp_path, sized):
    for _ in range(2):
        path = fetch(remote_file(server, sized=sized), tmp_path / "new")
        assert path.name == NAME and path.read_bytes() == CONTENT
    assert len(server.requests) == 1
    assert names_without_locks(path.parent) == [NAME]


@pytest.mark.parametrize("sized", [True, False])
def test_an_interrupted_download_is_resumed(server, tmp_path, sized):
    remote = remote_file(server, sized=sized)
    server.limit = 200_000
    for _ in range(2):
        with pytest.raises(
            OSError, match=r"archive.tar: .* ended after .* run again to resume"
        ):
            fetch(remote, tmp_path)
        assert not (tmp_path / NAME).exists()
    assert fetch(remote, tmp_path).read_bytes() == CONTENT
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
def test_after_a_connection_error_the_download_is_resumed(
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
            fetch(remote_file(server), tmp_path)
    assert fetch(remote_file(server), tmp_path).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=200000-"]


def test_a_download_starts_over_if_the_server_cannot_resume(server, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT[:1000])
    server.ranges = False
    assert fetch(remote_file(server), tmp_path).read_bytes() == CONTENT


def test_without_a_content_length_the_response_is_read_to_its_end(server, tmp_path):
    server.sends_length = False
    remote = remote_file(server, sized=False)
    assert fetch(remote, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("sized", [True, False])
def test_a_complete_but_not_yet_renamed_download_is_used(server, tmp_path, sized):
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT)
    path = fetch(remote_file(server, sized=sized), tmp_path)
    assert path.read_bytes() == CONTENT
    assert names_without_locks(tmp_path) == [NAME]
    assert server.requests == ([] if sized else [f"bytes={len(CONTENT)}-"])


@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize(
    "content",
    [CONTENT[:-1] + b"\0", CONTENT + b"\0" * 500],
    ids=["corrupted", "longer"],
)
def test_a_file_with_another_digest_is_deleted(server, tmp_path, sized, content):
    remote = remote_file(server, sized=sized)
    server.files[NAME] = content
    with pytest.raises(
        ValueError,
        match=rf"archive.tar is not the published file: its sha256 .*not"
        rf" {remote.digest}; .*save it as {tmp_path}/{NAME}",
    ):
        fetch(remote, tmp_path)
    assert names_without_locks(tmp_path) == []


def test_a_corrupted_partial_download_is_deleted_and_not_resumed_again(
    server, tmp_path
):
    (tmp_path / f"{NAME}.part").write_bytes(b"\0" * 1000)
    with pytest.raises(ValueError, match="is not the published file"):
        fetch(remote_file(server), tmp_path)
    assert fetch(remote_file(server), tmp_path).read_bytes() == CONTENT


def test_an_existing_file_of_another_size_is_replaced(server, tmp_path):
    (tmp_path / NAME).write_bytes(b"half")
    assert fetch(remote_file(server), tmp_path).read_bytes() == CONTENT


def test_if_the_file_or_the_server_is_missing_the_error_says_where_to_save_it(
    server, tmp_path
):
    remedy = f"download it by hand and save it as {tmp_path}"
    with pytest.raises(OSError, match=rf"{server.url('absent.tar')}: .*; {remedy}"):
        fetch(remote_file(server, name="absent.tar"), tmp_path)
    unreachable = RemoteFile("http://127.0.0.1:9/a.tar", "sha256", "")
    with pytest.raises(OSError, match=f"http://127.0.0.1:9/a.tar: .*; {remedy}"):
        fetch(unreachable, tmp_path)


@pytest.mark.parametrize("sized", [True, False])
def test_a_lack_of_disk_space_is_reported_before_the_download(
    server, tmp_path, monkeypatch, sized
):
    usage = shutil._ntuple_diskusage(10**9, 10**9, 1000)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(
        OSError,
        match=r"archive.tar needs 512,000 more bytes, but 1,000 are free.*data_dir",
    ):
        fetch(remote_file(server, sized=sized), tmp_path)
    assert len(server.requests) == (0 if sized else 1)
    assert names_without_locks(tmp_path) == []


def test_two_simultaneous_calls_download_once(server, tmp_path):
    remote = remote_file(server)
    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(lambda _: fetch(remote, tmp_path), range(2)))
    assert paths[0] == paths[1] and paths[0].read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_verify_names_the_file_and_both_digests(tmp_path):
    path = tmp_path / "weights.h5"
    path.write_bytes(CONTENT)
    md5 = hashlib.md5(CONTENT).hexdigest()
    download.verify(path, algorithm="md5", digest=md5)
    with pytest.raises(ValueError, match=f"{path} .*md5 is {md5}, not 0123; delete"):
        download.verify(path, algorithm="md5", digest="0123")
