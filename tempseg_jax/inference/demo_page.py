"""A local page: drop an image, see its overlay and what temperature does to it.

Gradio serves it; it is an optional extra: pip install -e '.[demo]'.
"""

import html
import socket
from typing import TYPE_CHECKING, NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8

from tempseg_jax.inference import image_files, overlays
from tempseg_jax.inference.predictor import Predictor

if TYPE_CHECKING:
    import gradio as gr

LARGEST_SIDE = 1024
"""Pixels; larger images are shown and segmented at this size."""

_SESSIONS = 8  # each keeps one image's probabilities: 80 MB for 21 classes

_CSS = """
.swatch { display: inline-block; width: 1em; height: 1em; margin-right: .5em;
          border: 1px solid #888; vertical-align: -.15em }
#areas { width: 100% } #areas td, #areas th { padding: .2em .5em; text-align: left }
"""

_TITLE = "Adversarial semantic segmentation with temperatures"


class Seen(NamedTuple):
    """One image, and all that a change of temperature needs of it."""

    image: UInt8[np.ndarray, "h w 3"]
    labels: UInt8[np.ndarray, "h w"]
    log_p: Float[np.ndarray, "h w k"]


def look(segment: Predictor, file: str) -> Seen:
    """Predictor an image, made smaller if it is large.

    Raises:
        ValueError: it is no image that can be used.
    """
    image = image_files.shrunk(image_files.read(file), largest_side=LARGEST_SIDE)
    p = segment.probabilities(image)
    log_p = np.log(np.maximum(p, np.finfo(np.float32).tiny))
    return Seen(image, p.argmax(axis=-1).astype(np.uint8), log_p)


def tempered(
    log_p: Float[np.ndarray, "h w k"], temperature: float
) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w"]]:
    """Return each pixel's highest probability and its entropy, 0 to 1, at T."""
    z = log_p / np.float32(temperature)
    z -= z.max(axis=-1, keepdims=True)
    p = np.exp(z)
    total = p.sum(axis=-1)
    nats = np.log(total) - (p * z).sum(axis=-1) / total
    return 1 / total, nats / np.log(log_p.shape[-1])


def area_table(segment: Predictor, seen: Seen) -> str:
    """Return the classes found, with colors and areas, as HTML."""
    rows = []
    for k, name, share in overlays.areas(seen.labels, segment.class_names):
        color = "#{:02x}{:02x}{:02x}".format(*segment.palette[k])
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
    """Return the means over the image, as HTML."""
    return (
        f'<p id="means">At T = {temperature:.2f} the mean highest probability is '
        f"<b>{confidence.mean():.3f}</b> and the mean entropy <b>{entropy.mean():.3f}"
        "</b> of its maximum. The classes are the same at every T.</p>"
    )


def color_map(
    values: Float[np.ndarray, "h w"], *, name: str
) -> UInt8[np.ndarray, "h w 3"]:
    """Paint 0 to 1."""
    return matplotlib.colormaps[name](np.clip(values, 0, 1), bytes=True)[..., :3]


def build(segment: Predictor) -> "gr.Blocks":
    """Return the page, not yet served.

    Raises:
        ValueError: Gradio is not installed.
    """
    try:
        import gradio as gr
    except ImportError as error:
        raise ValueError(
            "gradio is not installed; pip install -e '.[demo]' brings it"
        ) from error

    def warm(seen: Seen | None, temperature: int | float) -> tuple:
        if seen is None:
            return None, None, ""
        temperature = float(temperature)  # a browser sends 1 for 1.0
        confidence, entropy = tempered(seen.log_p, temperature)
        text = temperature_text(confidence, entropy, temperature=temperature)
        return (
            color_map(confidence, name="viridis"),
            color_map(entropy, name="magma"),
            text,
        )

    def show(file: str | None, temperature: int | float) -> tuple:
        if file is None:
            return None, None, "", *warm(None, temperature)
        try:
            seen = look(segment, file)
        except ValueError as error:
            # Without the server's path of the upload, which says nothing to a user.
            raise gr.Error(str(error).replace(file, "the image")) from error
        painted = overlays.overlay(seen.image, seen.labels, palette=segment.palette)
        areas = area_table(segment, seen)
        return seen, painted, areas, *warm(seen, temperature)

    with gr.Blocks(title=_TITLE, analytics_enabled=False) as page:
        gr.Markdown(
            f"# {_TITLE}\n{segment.name} trained on {segment.dataset}, checkpoint "
            f"{segment.step}, T_G = {segment.temperature_g:g}"
        )
        seen = gr.State(None, time_to_live=3600)
        with gr.Row():
            file = gr.Image(
                label="Image",
                type="filepath",
                image_mode=None,  # as it is: `image_files` knows what to do
                sources=["upload"],
                elem_id="input",
            )
            painted = gr.Image(
                label="Classes", elem_id="overlay", interactive=False, format="png"
            )
            areas = gr.HTML(elem_id="area-panel")
        temperature = gr.Slider(
            0.1, 5, value=1, step=0.05, label="Temperature T", elem_id="temperature"
        )
        means = gr.HTML()
        with gr.Row():
            confidence = gr.Image(
                label="Highest probability (dark 0, yellow 1)",
                elem_id="confidence",
                interactive=False,
                format="png",
            )
            entropy = gr.Image(
                label="Entropy (dark: certain, bright: undecided)",
                elem_id="entropy",
                interactive=False,
                format="png",
            )
        maps = [confidence, entropy, means]
        file.change(show, [file, temperature], [seen, painted, areas, *maps])
        temperature.release(warm, [seen, temperature], maps)
    return page


def serve(segment: Predictor, *, port: int, wait: bool) -> str:
    """Serve the page on this machine alone; return its address.

    Args:
        segment: what the page shows.
        port: to listen at; 0 is any free one.
        wait: return only when interrupted.

    Raises:
        ValueError: Gradio is not installed.
        OSError: the port is taken.
    """
    page = build(segment)
    import gradio as gr

    # The defaults ask a server elsewhere for fonts.
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
    )
    print(f"serving {segment.name} at {address} (Ctrl-C ends it)", flush=True)
    if wait:
        page.block_thread()
    return address


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
