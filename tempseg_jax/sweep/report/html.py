"""The report as one HTML page: nothing outside it, no script."""

import re
from collections.abc import Sequence
from html import escape

from tempseg_jax.sweep.report.build import MISSING, READING, Report, Section
from tempseg_jax.sweep.report.collect import Evidence
from tempseg_jax.sweep.report.examples import (
    BOTH_WRONG,
    FIRST_RIGHT,
    SECOND_RIGHT,
    Comparison,
)
from tempseg_jax.sweep.report.figures import Figure
from tempseg_jax.sweep.report.view import STAR, SUBSCRIPT, View

NUMBER = re.compile(r"[+−]?\d|[VC] [+−]")
"""What a cell that is not broken into lines begins with."""

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #111; background: #fff;
  max-width: 71rem; margin: 0 auto; padding: 1rem; }
h1, h2, h3 { line-height: 1.25; }
h2 { border-top: 1px solid #bbb; padding-top: 1.2rem; margin-top: 2rem; }
p, ul { max-width: 48rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; }
dt { color: #555; }
dd { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; font-size: .8125rem; margin: .5rem 0;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .25rem 0; }
th, td { padding: .3rem .4rem; border-bottom: 1px solid #ccc; text-align: right; }
th:first-child, td:first-child { text-align: left; min-width: 10rem; }
thead th { border-bottom: 2px solid #333; vertical-align: bottom; }
.number { white-space: nowrap; }
.wide { overflow-x: auto; }
td.told { font-weight: 700; }
.note, figcaption { color: #444; font-size: .875rem; }
.missing { border: 2px solid #D55E00; padding: .25rem 1rem; }
.figures, .tiles { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; width: 23rem; max-width: 100%; break-inside: avoid; }
.tiles figure { width: 13.2rem; }
sub { line-height: 0; font-size: .75em; }
img { max-width: 100%; height: auto; display: block; }
.tiles img { width: 100%; }
.swatch { display: inline-block; width: 1em; height: 1em; vertical-align: -.15em;
  border: 1px solid #555; margin-right: .3em; }
.legend span { margin-right: 1rem; white-space: nowrap; }
@media screen and (max-width: 700px) {
  table, caption, tbody, tr, td { display: block; }
  thead { display: none; }
  tr { border-bottom: 2px solid #999; padding: .4rem 0; }
  td, td:first-child { border: 0; text-align: right; padding: .1rem 0;
    display: flex; justify-content: space-between; gap: 1rem; }
  td:first-child { font-weight: 600; }
  td:not(:first-child)::before { content: attr(data-label); color: #555;
    text-align: left; }
  .tiles figure { width: calc(50% - .5rem); }
}
@media print {
  body { font-size: 10pt; max-width: none; padding: 0; }
  table { font-size: 7pt; width: 100%; }
  th, td { padding: .15rem .2rem; }
  th:first-child, td:first-child { min-width: 0; }
  .wide { overflow: visible; break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  tr, .tiles { break-inside: avoid; }
  figure { width: 48%; }
  .tiles figure { width: 18%; }
}
"""


def to_html(report: Report, evidence: Evidence) -> str:
    """Return the page."""
    facts = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>"
        for name, value in report.facts
    )
    body = [
        f"<h1>{escape(report.title)}</h1>",
        f"<dl>{facts}</dl>",
        _state(report),
        f"<h2>How to read it</h2><p>{escape(READING)}</p>",
        *map(_section, report.sections),
        _comparison(report.comparison, evidence),
        _missing(report.missing),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{escape(report.title)}</title><style>{STYLE}</style></head>\n"
        f"<body>{''.join(body)}</body></html>\n"
    )


def _state(report: Report) -> str:
    text = escape(report.state)
    if not report.missing:
        return f"<p>{text}</p>"
    text = text.replace("see the end", '<a href="#missing">see the end</a>')
    return f'<p class="missing">{text}</p>'


def _missing(missing: Sequence[str]) -> str:
    if not missing:
        return ""
    items = "".join(f"<li>{_words(text)}</li>" for text in missing)
    return f'<section id="missing"><h2>{MISSING}</h2><ul>{items}</ul></section>'


def _section(section: Section) -> str:
    text = "".join(f"<p>{_words(paragraph)}</p>" for paragraph in section.text)
    views = "".join(map(_table, section.views))
    figures = "".join(map(_figure, section.figures))
    shown = f'<div class="figures">{figures}</div>' if figures else ""
    return f"<section><h2>{_words(section.title)}</h2>{text}{views}{shown}</section>\n"


def _table(view: View) -> str:
    head = "".join(f'<th scope="col">{_words(name)}</th>' for name in view.header)
    rows = "".join(f"<tr>{_cells(view, row)}</tr>" for row in view.rows)
    note = f'<p class="note">{_words(view.note)}</p>' if view.note else ""
    title = _words(view.title)
    if not view.rows:
        return f"<h3>{title}</h3><p>Nothing to show yet.</p>{note}"
    return (
        f'<div class="wide"><table><caption>{title}</caption><thead><tr>{head}</tr>'
        f"</thead><tbody>{rows}</tbody></table></div>{note}"
    )


def _cells(view: View, row: tuple[str, ...]) -> str:
    cells = []
    for name, text in zip(view.header, row, strict=True):
        kinds = "number " * bool(NUMBER.match(text)) + "told" * (STAR in text)
        kind = f' class="{kinds.strip()}"' if kinds else ""
        cells.append(
            f'<td data-label="{escape(name)}"{kind}><span>{_words(text)}</span></td>'
        )
    return "".join(cells)


def _words(text: str) -> str:
    """Escape, and set subscripts as such."""
    return SUBSCRIPT.sub(r"<i>\1</i><sub>\2</sub>", escape(text))


def _figure(figure: Figure) -> str:
    caption = escape(figure.caption)
    return (
        f'<figure><img src="{figure.source}" alt="{caption}">'
        f"<figcaption>{_words(figure.caption)}</figcaption></figure>"
    )


def _comparison(comparison: Comparison | str, evidence: Evidence) -> str:
    heading = "<h2>Where two settings disagree most</h2>"
    if isinstance(comparison, str):
        return f"<section>{heading}<p>{_words(comparison)}</p></section>"
    first, second = _words(comparison.first), _words(comparison.second)
    classes = zip(evidence.class_names, evidence.palette.tolist(), strict=True)
    legend = "".join(_swatch(name, color) for name, color in classes)
    who = (
        _swatch(f"only {comparison.first} is right", FIRST_RIGHT)
        + _swatch(f"only {comparison.second} is right", SECOND_RIGHT)
        + _swatch("both wrong, differently", BOTH_WRONG)
    )
    shown = []
    for example in comparison.examples:
        tiles = "".join(
            f'<figure><img src="{source}" alt="{escape(f"{example.id}: {title}")}">'
            f"<figcaption>{_words(title)}</figcaption></figure>"
            for title, source in example.tiles
        )
        shown.append(
            f"<h3>{escape(example.id)}: {100 * example.fraction:.1f} % of the "
            f'scored pixels differ</h3><div class="tiles">{tiles}</div>'
        )
    return (
        f"<section>{heading}<p>{first} and {second}, seed {comparison.seed}, on "
        "val: of each part of the split, the image on which they differ most.</p>"
        f'<p class="legend">{legend}</p><p class="legend">Who is right: {who}</p>'
        f"{''.join(shown)}</section>"
    )


def _swatch(name: str, color: Sequence[int]) -> str:
    red, green, blue = color
    style = f"background:rgb({red},{green},{blue})"
    return f'<span><i class="swatch" style="{style}"></i>{_words(name)}</span>'
