"""Downloads: verified, resumed, kept, and explained where there is no network."""

import hashlib
import http.server
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import huggingface_hub
import pytest

from tempseg_jax.models.weights.sources import HubFile, KerasFile

CONTENT = bytes(range(256)) * 4096
MD5 = hashlib.md5(CONTENT).hexdigest()


class _Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT by range; `cut` bytes at most, as a failing connection would."""

    requests: list[str] = []
    cut = len(CONTENT)
    says_length = True

    def do_GET(self):
        start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        self.requests.append(self.headers["Range"])
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206)
        if self.says_length:
            self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : start + self.cut])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    """Return the URL of a file on a local server, with an empty Keras cache."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(_Handler, "requests", [])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}/w.h5"
        httpd.shutdown()


def test_a_file_is_downloaded_once(server, tmp_path):
    path = KerasFile(server, MD5).fetch()
    assert path == tmp_path / "models/w.h5"
    assert path.read_bytes() == CONTENT
    assert KerasFile(server, MD5).fetch() == path
    assert len(_Handler.requests) == 1
    assert files(path.parent) == [path]


def files(folder):
    return [path for path in folder.iterdir() if path.suffix != ".lock"]


def test_two_processes_at_once_download_once(server):
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: KerasFile(server, MD5).fetch(), "ab")
    assert first == second and first.read_bytes() == CONTENT
    assert len(_Handler.requests) == 1


def test_a_server_that_does_not_say_how_much_comes_is_read_to_the_end(
    server, monkeypatch
):
    monkeypatch.setattr(_Handler, "says_length", False)
    assert KerasFile(server, MD5).fetch().read_bytes() == CONTENT


def test_an_interrupted_download_is_resumed(server, monkeypatch, tmp_path):
    monkeypatch.setattr(_Handler, "cut", 300_000)
    with pytest.raises(ValueError, match="start again and it resumes"):
        KerasFile(server, MD5).fetch()
    assert not (tmp_path / "models/w.h5").exists()
    monkeypatch.setattr(_Handler, "cut", len(CONTENT))
    assert KerasFile(server, MD5).fetch().read_bytes() == CONTENT
    assert _Handler.requests == ["bytes=0-", "bytes=300000-"]


def test_a_download_that_was_complete_but_not_yet_named_is_taken(server, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models/w.h5.part").write_bytes(CONTENT)
    assert KerasFile(server, MD5).fetch().read_bytes() == CONTENT


def test_another_file_than_the_published_one_is_not_kept(server, tmp_path):
    with pytest.raises(ValueError, match=f"md5 is {MD5}, not 0123"):
        KerasFile(server, "0123").fetch()
    assert files(tmp_path / "models") == []


def test_a_damaged_file_in_the_cache_is_named(server, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models/w.h5").write_bytes(CONTENT[:-1])
    with pytest.raises(
        ValueError, match="models/w.h5 is not the published file.*delete"
    ):
        KerasFile(server, MD5).fetch()
    assert _Handler.requests == []


def test_without_a_network_the_place_of_the_file_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    url = "http://127.0.0.1:9/w.h5"
    with pytest.raises(ValueError, match=f"{url}.*put it in {tmp_path}/models under"):
        KerasFile(url, MD5).fetch()


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Return the folder in which the Hub keeps files by their SHA-256."""
    monkeypatch.setattr(
        huggingface_hub,
        "try_to_load_from_cache",
        lambda repo, name: next(map(str, tmp_path.glob("*")), None),
    )

    def offline(repo, name):
        raise FileNotFoundError("no route to the Hub\nsecond line")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    return tmp_path


def test_a_cached_hub_file_needs_no_network(hub):
    blob = hub / hashlib.sha256(CONTENT).hexdigest()
    blob.write_bytes(CONTENT)
    assert HubFile("timm/x").fetch() == Path(blob)


def test_a_damaged_hub_file_is_named(hub):
    (hub / hashlib.sha256(CONTENT).hexdigest()).write_bytes(CONTENT[1:])
    with pytest.raises(ValueError, match="is not the published file: its sha256"):
        HubFile("timm/x").fetch()


def test_without_a_network_the_hub_file_is_said(hub):
    url = "https://huggingface.co/timm/x/resolve/main/model.safetensors"
    with pytest.raises(ValueError, match=rf"{url} \(no route to the Hub\).*pretrained"):
        HubFile("timm/x").fetch()
