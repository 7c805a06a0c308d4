import asyncio

import numpy as np
import pytest
from PIL import Image

from tempseg_jax.inference import demo_page
from tempseg_jax.inference.local_only import LocalOnly


def ask(**headers):
    """Return the status and the body of a request with these headers."""
    sent = []

    async def page(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"page"})

    async def send(message):
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "headers": raw}
    asyncio.run(LocalOnly(page)(scope, None, send))
    return sent[0]["status"], sent[1]["body"].decode()


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "[::1]:80"])
def test_this_machine_is_served(host):
    assert ask(host=host) == ask(host=host, origin=f"http://{host}") == (200, "page")


@pytest.mark.parametrize("host", ["rebound.example:7860", "127.0.0.1.example", "", "["])
def test_another_host_is_refused_and_told_why(host):
    status, body = ask(host=host)
    assert status == 403 and f"host {host!r} is not this machine" in body


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://["])
def test_a_page_of_another_origin_is_refused_and_told_why(origin):
    status, body = ask(host="localhost:7860", origin=origin)
    assert status == 403 and body == f"a page of {origin!r} may not use this one"


def test_an_image_with_too_many_pixels_is_refused_by_its_header(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_page, "LARGEST_IMAGE", 100)
    path = tmp_path / "x.png"
    Image.fromarray(np.zeros((10, 11, 3), np.uint8)).save(path)
    with pytest.raises(ValueError, match="x.png: 11 x 10 pixels are more than 100; "):
        demo_page._check_pixels(str(path))
    path.write_bytes(b"no image")
    with pytest.raises(ValueError, match="x.png: it is no image"):
        demo_page._check_pixels(str(path))
