"""Where weight files are kept, and the messages when there is no network."""

import hashlib
from pathlib import Path

import huggingface_hub
import pytest

from tempseg_jax.models.weights.sources import HubFile, KerasFile
from tests import file_server

CONTENT = bytes(range(256)) * 4096
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A server of w.h5, with an empty Keras cache in `tmp_path`."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with file_server.serve({"w.h5": CONTENT}) as server:
        yield server


def files(folder):
    return [path for path in folder.iterdir() if path.suffix != ".lock"]


def test_a_keras_file_is_downloaded_once_to_the_cache_of_keras(server, tmp_path):
    keras_file = KerasFile(server.url("w.h5"), MD5)
    path = keras_file.fetch()
    assert path == tmp_path / "models/w.h5"
    assert path.read_bytes() == CONTENT
    assert keras_file.fetch() == path
    assert len(server.requests) == 1
    assert files(path.parent) == [path]


def test_an_interrupted_download_is_a_value_error_and_is_resumed(server, tmp_path):
    keras_file = KerasFile(server.url("w.h5"), MD5)
    server.limit = 300_000
    with pytest.raises(ValueError, match="run again to resume"):
        keras_file.fetch()
    assert not (tmp_path / "models/w.h5").exists()
    server.limit = None
    assert keras_file.fetch().read_bytes() == CONTENT
    assert server.requests == [None, "bytes=300000-"]


def test_a_file_with_another_md5_is_not_kept(server, tmp_path):
    with pytest.raises(ValueError, match=f"md5 is {MD5}, not 0123"):
        KerasFile(server.url("w.h5"), "0123").fetch()
    assert files(tmp_path / "models") == []


def test_a_damaged_file_in_the_cache_is_named(server, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models/w.h5").write_bytes(CONTENT[:-1])
    with pytest.raises(
        ValueError, match="models/w.h5 is not the published file.*delete"
    ):
        KerasFile(server.url("w.h5"), MD5).fetch()
    assert server.requests == []


def test_without_a_network_the_message_says_where_to_put_the_file(
    monkeypatch, tmp_path
):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    url = "http://127.0.0.1:9/w.h5"
    with pytest.raises(ValueError, match=f"{url}.*save it as {tmp_path}/models/w.h5"):
        KerasFile(url, MD5).fetch()


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The folder of a Hub cache that names files by their SHA-256; no network."""
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


def test_without_a_network_the_message_has_the_url_and_the_remedy_for_a_hub_file(hub):
    url = "https://huggingface.co/timm/x/resolve/main/model.safetensors"
    with pytest.raises(ValueError, match=rf"{url}: no route to the Hub; .*pretrained"):
        HubFile("timm/x").fetch()
