"""The report as one HTML page: every text escaped, every script inline, nothing loaded.

``report`` fills it. A content policy in the page forbids every request, so a page that a person is
sent cannot call home.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from competition.console import Column, Table, format_value
from competition.console import escape as escape_hidden
from competition.report.curves import Figure

FILTERED = 8  # rows from which a table gets a filter
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline';"
    " img-src data: blob:; base-uri 'none'; form-action 'none'"
)
STYLE = """
:root { color-scheme: light dark; --fg: #1b1f24; --bg: #fff; --line: #d5dae0; --soft: #f3f5f7;
  --accent: #0b5fa5; --heat: #0b5fa5; }
@media (prefers-color-scheme: dark) {
  :root { --fg: #e4e7eb; --bg: #14171b; --line: #3a4048; --soft: #1e2329; --accent: #6db3f2;
    --heat: #2f74b5; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--fg); background: var(--bg);
  margin: 0 auto; max-width: 1200px; padding: 1rem; }
nav { position: sticky; top: 0; background: var(--bg); padding: .4rem 0; z-index: 2;
  border-bottom: 1px solid var(--line); overflow-x: auto; white-space: nowrap; }
nav a { margin-right: 1rem; } a { color: var(--accent); }
h2 { margin-top: 2rem; scroll-margin-top: 3rem; } h3 { margin: 1.2rem 0 .3rem; }
.scroll { overflow: auto; max-height: 32rem; border: 1px solid var(--line); border-radius: 4px; }
table { border-collapse: collapse; width: 100%; font-size: 13px; }
th, td { text-align: left; padding: .25rem .5rem; vertical-align: top;
  border-bottom: 1px solid var(--line); overflow-wrap: break-word; min-width: 4.5rem; }
td.label { min-width: 10rem; } td.id { white-space: nowrap; }
td.wide { min-width: 22rem; overflow-wrap: anywhere; }
td.number, th.number { text-align: right; overflow-wrap: normal;
  font-variant-numeric: tabular-nums; white-space: nowrap; }
th { position: sticky; top: 0; background: var(--soft); }
code { background: var(--soft); padding: .1rem .3rem; border-radius: 3px; overflow-wrap: anywhere; }
.note { margin: .3rem 0; opacity: .85; font-size: 13px; }
input.filter { width: 100%; max-width: 24rem; margin: .3rem 0; padding: .35rem; font: inherit;
  color: var(--fg); background: var(--soft); border: 1px solid var(--line); border-radius: 4px; }
.plot { width: 100%; min-height: 280px; }
@media (max-width: 600px) { body { padding: .6rem; } h1 { font-size: 1.4rem; }
  table.cards, .cards tbody, .cards tr, .cards td { display: block; min-width: 0; }
  .cards thead { display: none; }
  .cards tr { padding: .3rem 0; border-bottom: 1px solid var(--line); }
  .cards tr[hidden] { display: none; } .cards td { border: 0; padding: .05rem .5rem; }
  .cards td.number { text-align: left; }
  .cards td:not(.wide)::before { content: attr(data-head) ": "; opacity: .7; } }
@media print { nav, input.filter { display: none; } .scroll { overflow: visible; max-height: none; }
  th { position: static; } h2, .plot { break-inside: avoid; } }
"""
SCRIPT = """
const dark = window.matchMedia('(prefers-color-scheme: dark)');
const plots = [...document.querySelectorAll('.plot')];
const narrow = window.innerWidth < 600;
const colour = (name) =>
  getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const paint = (plot) => {
  const line = colour('--line');
  if (plot.data[0].type === 'heatmap') {
    const scale = [[0, colour('--soft')], [1, colour('--heat')]];
    Plotly.restyle(plot, { colorscale: [scale], showscale: !narrow });
  }
  Plotly.relayout(plot, { 'font.color': colour('--fg'), 'xaxis.gridcolor': line,
    'yaxis.gridcolor': line, 'xaxis.zerolinecolor': line, 'yaxis.zerolinecolor': line,
    ...(narrow ? { 'font.size': 10 } : {}) });
};
for (const plot of plots) {
  const figure = JSON.parse(document.getElementById(plot.dataset.figure).textContent);
  Plotly.newPlot(plot, figure.data, figure.layout,
    { responsive: true, displaylogo: false, displayModeBar: false })
    .then(() => paint(plot));
}
dark.addEventListener('change', () => plots.forEach(paint));
for (const box of document.querySelectorAll('input.filter')) {
  const rows = [...document.getElementById(box.dataset.table).tBodies[0].rows];
  box.addEventListener('input', () => {
    const words = box.value.toLowerCase().split(/\\s+/).filter(Boolean);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  });
}
"""


@dataclass
class Page:
    """A page on its way; ``in_context`` lets proposed commands mean this competition."""

    title: str
    in_context: Callable[[str], str] = str
    _parts: list[str] = field(default_factory=list)
    _sections: list[tuple[str, str]] = field(default_factory=list)
    _faults: list[str] = field(default_factory=list)
    _count: int = 0

    def write_text(self, text: object) -> str:
        """Return a text as HTML that shows it and does nothing."""
        return html.escape(escape_hidden(self.in_context(str(text))))

    def add_section(self, title: str) -> None:
        """Begin a section."""
        key = f"section-{len(self._sections)}"
        self._sections.append((key, title))
        self._parts.append(f'<h2 id="{key}">{self.write_text(title)}</h2>')

    def add_paragraph(self, text: str) -> None:
        """Add a sentence or two."""
        self._parts.append(f"<p>{self.write_text(text)}</p>")

    def add_fault(self, text: str) -> None:
        """Name a file, or a part of one, that is left aside; the last section lists them."""
        self._faults.append(text)

    def add_commands(self, commands: Sequence[tuple[str, str]]) -> None:
        """Add commands, each with its reason."""
        items = "".join(
            f"<li><code>{self.write_text(command)}</code><br>{self.write_text(reason)}</li>"
            for command, reason in commands
        )
        self._parts.append(f"<ol>{items}</ol>")

    def add_table(self, table: Table, *, folded: bool = False) -> None:
        """Add a table with its notes; a long one can be filtered, a folded one is closed."""
        title = self.write_text(table.title)
        inside = self._write_grid(table) if table.columns and table.rows else ""
        notes = "".join(f'<p class="note">{self.write_text(note)}</p>' for note in table.notes)
        if folded:
            self._parts.append(f"<details><summary>{title}</summary>{inside}{notes}</details>")
        else:
            self._parts.append(f"<h3>{title}</h3>{inside}{notes}")

    def add_figure(self, figure: Figure, table: Table) -> None:
        """Add a plot and, folded below it, the table of its numbers."""
        self._count += 1
        key = f"figure-{self._count}"
        text = json.dumps(figure, ensure_ascii=True, allow_nan=False).replace("<", "\\u003c")
        self._parts.append(f"<h3>{self.write_text(table.title)}</h3>")
        self._parts.append(f'<div class="plot" data-figure="{key}"></div>')
        self._parts.append(f'<script type="application/json" id="{key}">{text}</script>')
        shown = Table(table.name, "The same as a table", table.columns, table.rows, table.notes)
        self.add_table(shown, folded=True)

    def _write_grid(self, table: Table) -> str:
        self._count += 1
        key = f"table-{self._count}"
        head = "".join(
            f'<th class="{_class_of(column)}">{self.write_text(column.header)}</th>'
            for column in table.columns
        )
        body = "".join(self._write_row(table.columns, row) for row in table.rows)
        box = (
            f'<input class="filter" data-table="{key}" placeholder="filter" aria-label="filter">'
            if len(table.rows) >= FILTERED
            else ""
        )
        is_wide = any(_class_of(column) == "wide" for column in table.columns)
        kind = ' class="cards"' if is_wide else ""
        return (
            f'{box}<div class="scroll"><table id="{key}"{kind}><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )

    def _write_row(self, columns: Sequence[Column], row: Any) -> str:
        return f"<tr>{''.join(self._write_cell(column, row) for column in columns)}</tr>"

    def _write_cell(self, column: Column, row: Any) -> str:
        kind = _class_of(column)
        text = self.write_text(format_value(row.get(column.key), column.kind))
        if kind == "label":
            text = re.sub(r"([:/_])", r"\1<wbr>", text)  # where a long label may break
        return f'<td class="{kind}" data-head="{self.write_text(column.header)}">{text}</td>'

    def build(self, plot_script: str) -> str:
        """Return the whole page.

        Args:
            plot_script: the plotting library's source, which goes into the page once.
        """
        if self._faults:
            self.add_section("Left aside")
            for fault in dict.fromkeys(self._faults):
                self.add_paragraph(fault)
            self._faults = []
        links = "".join(
            f'<a href="#{key}">{self.write_text(title)}</a>' for key, title in self._sections
        )
        title = self.write_text(self.title)
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<link rel="icon" href="data:,"><title>{title}</title><style>{STYLE}</style></head>'
            f"<body><h1>{title}</h1><nav>{links}</nav>{''.join(self._parts)}"
            f"<script>{plot_script}</script><script>{SCRIPT}</script></body></html>\n"
        )


def _class_of(column: Column) -> str:
    if column.key in ("sentence", "reason", "answers", "why"):
        return "wide"
    if column.key in ("published", "predicted", "suggested", "gold", "label"):
        return "label" if column.kind == "text" else "number"
    if column.key == "id":
        return "id"
    return "text" if column.kind == "text" else "number"
