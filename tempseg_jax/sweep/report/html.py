"""The report as one HTML page that loads nothing else and runs no script."""

import re

import jinja2
from markupsafe import Markup, escape

from tempseg_jax.sweep.report import examples, overview
from tempseg_jax.sweep.report.build import Report
from tempseg_jax.sweep.report.collect import SweepResults
from tempseg_jax.sweep.report.view import STAR, SUBSCRIPT

TEMPLATE = "report.html.jinja"
NUMBER = re.compile(r"[+−]?\d|[VC] [+−]")
"""The beginning of a table cell that is not broken into lines."""


def to_html(report: Report, sweep: SweepResults) -> str:
    """Return the page."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, package_path=""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"subscripts": _subscripts, "css_classes": _css_classes}
    return environment.get_template(TEMPLATE).render(
        report=report,
        reading=overview.READING,
        how_to_read=overview.HOW_TO_READ,
        missing=overview.MISSING,
        classes=list(zip(sweep.class_names, sweep.palette.tolist(), strict=True)),
        first_correct=examples.FIRST_CORRECT,
        second_correct=examples.SECOND_CORRECT,
        both_wrong=examples.BOTH_WRONG,
    )


def _subscripts(text: str) -> Markup:
    """Escape text, and set the symbols of the paper, such as `T_G`, with subscripts."""
    return Markup(SUBSCRIPT.sub(r"<i>\1</i><sub>\2</sub>", str(escape(text))))


def _css_classes(text: str) -> str:
    """Return the CSS classes of a table cell."""
    names = ("number", NUMBER.match(text)), ("significant", STAR in text)
    return " ".join(name for name, applies in names if applies)
