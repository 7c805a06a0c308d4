"""A local web page that predicts an image and shows the effect of temperature.

It is served by Gradio, an optional dependency: pip install -e '.[demo]'.
"""

import html
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from tempseg_jax.inference import image_files, overlays
from tempseg_jax.inference.local_only import LocalOnly
from tempseg_jax.inference.predictor import Predictor

if TYPE_CHECKING:
    import gradio as gr

LARGEST_SIDE = 1024
"""Pixels; larger images are downsized to it before prediction."""

LARGEST_UPLOAD = 32 << 20
"""Bytes; larger files are refused while they are uploaded."""

LARGEST_IMAGE = 50_000_000
"""Pixels; larger images are refused before they are decoded, which takes 0.2 GB."""

_SESSIONS = 8  # each keeps the log p of one image: 80 MB for 21 classes

_CSS = """
.swatch { display: inline-block; width: 1em; height: 1em; margin-right: .5em;
          border: 1px solid #888; vertical-align: -.15em }
#areas { width: 100% } #areas td, #areas th { padding: .2em .5em; text-align: left }
"""

_TITLE = "Adversarial semantic segmentation with temperatures"


class Prediction(NamedTuple):
    """An image and its prediction, from which any temperature can be shown."""

    image: UInt8[np.ndarray, "h w 3"]
    labels: UInt8[np.ndarray, "h w"]
    log_p: Float[np.ndarray, "h w k"]


def predict(predictor: Predictor, file: str) -> Prediction:
    """Predict an image file, downsized to `LARGEST_SIDE`.

    Raises:
        ValueError: If the image cannot be read, has more than `LARGEST_IMAGE` pixels,
            or its pixel type is not supported.
    """
    _check_pixels(file)
    image = image_files.shrunk(image_files.read(file), largest_side=LARGEST_SIDE)
    p = predictor.probabilities(image)
    log_p = np.log(np.maximum(p, np.finfo(np.float32).tiny))
    return Prediction(image, p.argmax(axis=-1).astype(np.uint8), log_p)


def _check_pixels(file: str) -> None:
    """Check the size that the header of an image states, without decoding it."""
    try:
        with Image.open(file) as header:
            width, height = header.size
    except Exception as error:  # Pillow raises many types for damaged files
        raise ValueError(f"{file}: it is no image that can be read") from error
    if width * height > LARGEST_IMAGE:
        raise ValueError(
            f"{file}: {width} x {height} pixels are more than {LARGEST_IMAGE:,}; make "
            "it smaller, or use scripts/predict.py"
        )


def confidence_and_entropy(
    log_p: Float[np.ndarray, "h w k"], temperature: float
) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w"]]:
    """Return each pixel's highest probability and its entropy at temperature T.

    The entropy is divided by its maximum, log k, so that it is from 0 to 1.
    """
    z = log_p / np.float32(temperature)
    z -= z.max(axis=-1, keepdims=True)
    p = np.exp(z)
    total = p.sum(axis=-1)
    nats = np.log(total) - (p * z).sum(axis=-1) / total
    return 1 / total, nats / np.log(log_p.shape[-1])


def area_table(predictor: Predictor, labels: UInt8[np.ndarray, "h w"]) -> str:
    """Return an HTML table of the classes present, with their colors and areas."""
    rows = []
    for k, name, share in overlays.areas(labels, predictor.class_names):
        color = "#{:02x}{:02x}{:02x}".format(*predictor.palette[k])
        swatch = f'<span style="background:{color}" class="swatch"></span>'
        rows.append(
            f"<tr><td>{swatch}{html.escape(name)}</td>"
            f"<td>{html.escape(overlays.percent(share))}</td></tr>"
        )
    head = "<tr><th>class</th><th>area</th></tr>"
    return f'<table id="areas">{head}{"".join(rows)}</table>'


def temperature_text(
    confidence: Float[np.ndarray, "h w"],
    entropy: Float[np.ndarray, "h w"],
    *,
    temperature: float,
) -> str:
    """Return the means of confidence and entropy over the image, as HTML."""
    return (
        f'<p id="means">At T = {temperature:.2f} the mean highest probability is '
        f"<b>{confidence.mean():.3f}</b> and the mean entropy <b>{entropy.mean():.3f}"
        "</b> of its maximum. The labels are the same at every T.</p>"
    )


def color_map(
    values: Float[np.ndarray, "h w"], *, name: str
) -> UInt8[np.ndarray, "h w 3"]:
    """Map values from 0 to 1 to colors of a Matplotlib color map."""
    return matplotlib.colormaps[name](np.clip(values, 0, 1), bytes=True)[..., :3]


def build(predictor: Predictor) -> "gr.Blocks":
    """Return the page; `serve` serves it.

    Raises:
        ValueError: If Gradio is not installed.
    """
    try:
        import gradio as gr
    except ImportError as error:
        raise ValueError(
            "gradio is not installed; install it by: pip install -e '.[demo]'"
        ) from error

    show, temper = _callbacks(predictor)
    with gr.Blocks(
        title=_TITLE,
        analytics_enabled=False,
        delete_cache=(600, 600),  # seconds; uploads of closed pages
    ) as page:
        gr.Markdown(
            f"# {_TITLE}\n{predictor.name} trained on {predictor.dataset}, checkpoint "
            f"{predictor.step}, T_G = {predictor.temperature_g:g}"
        )
        prediction = gr.State(None, time_to_live=3600)
        with gr.Row():
            file = gr.Image(
                label="Image",
                type="filepath",
                image_mode=None,  # unconverted: `image_files.read` converts it
                sources=["upload"],
                elem_id="input",
            )
            overlay = gr.Image(
                label="Labels", elem_id="overlay", interactive=False, format="png"
            )
            areas = gr.HTML(elem_id="area-panel")
        temperature = gr.Slider(
            0.1, 5, value=1, step=0.05, label="Temperature T", elem_id="temperature"
        )
        means = gr.HTML()
        with gr.Row():
            confidence = gr.Image(
                label="Highest probability (dark: 0, yellow: 1)",
                elem_id="confidence",
                interactive=False,
                format="png",
            )
            entropy = gr.Image(
                label="Entropy (dark: certain, bright: uncertain)",
                elem_id="entropy",
                interactive=False,
                format="png",
            )
        maps = [confidence, entropy, means]
        file.change(show, [file, temperature], [prediction, overlay, areas, *maps])
        temperature.release(temper, [prediction, temperature], maps)
    return page


def _callbacks(predictor: Predictor) -> tuple[Callable, Callable]:
    """Return what runs when the image changes, and when the temperature changes."""
    import gradio as gr

    def temper(prediction: Prediction | None, temperature: int | float) -> tuple:
        if prediction is None:
            return None, None, ""
        temperature = float(temperature)  # a browser sends 1 for 1.0
        confidence, entropy = confidence_and_entropy(prediction.log_p, temperature)
        text = temperature_text(confidence, entropy, temperature=temperature)
        return (
            color_map(confidence, name="viridis"),
            color_map(entropy, name="magma"),
            text,
        )

    def show(file: str | None, temperature: int | float) -> tuple:
        if file is None:
            return None, None, "", *temper(None, temperature)
        try:
            prediction = predict(predictor, file)
        except ValueError as error:
            # The message has the temporary path of the upload, which no user knows.
            raise gr.Error(str(error).replace(file, "the image")) from error
        finally:
            Path(file).unlink(missing_ok=True)
        labels = prediction.labels
        overlay = overlays.overlay(prediction.image, labels, palette=predictor.palette)
        areas = area_table(predictor, labels)
        return prediction, overlay, areas, *temper(prediction, temperature)

    return show, temper


def serve(predictor: Predictor, *, port: int, wait: bool) -> str:
    """Serve the page to this machine only, and return its address.

    Args:
        predictor: The trained segmenter.
        port: Port to listen on; 0 chooses a free one.
        wait: Whether to block until interrupted.

    Raises:
        ValueError: If Gradio is not installed.
        OSError: If the port is in use.
    """
    page = build(predictor)
    import gradio as gr
    from starlette.middleware import Middleware  # a dependency of Gradio

    # The default theme loads fonts from an external server.
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    _, address, _ = page.launch(
        server_name="127.0.0.1",
        server_port=port or _free_port(),
        prevent_thread_lock=True,
        share=False,
        quiet=True,
        theme=theme,
        css=_CSS,
        footer_links=[],
        ssr_mode=False,
        state_session_capacity=_SESSIONS,
        max_file_size=LARGEST_UPLOAD,
        app_kwargs={"middleware": [Middleware(LocalOnly)]},
    )
    print(f"serving {predictor.name} at {address} (Ctrl-C stops it)", flush=True)
    if wait:
        page.block_thread()
    return address


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
