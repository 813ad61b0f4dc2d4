"""Markdown from a results file: environment, then one table per op and dtype."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.measuring.cases import Case, ModelCase
from benchmarks.measuring.results import OK, Change, Results, Row
from benchmarks.measuring.tables import milliseconds, table, unique
from benchmarks.render import model_report
from benchmarks.training import scale

BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
_TITLES = {
    "ss2d": "`ss2d`: from x to merged y, projections included",
    "ss2d_scan": "The four-direction kernels alone, from projected inputs",
    "selective_scan": "`selective_scan`: one dimension, 4 * D channels in 4 groups, L = H * W",
}


class _Section:
    """All rows of one op, dtype and group of cases."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.modes = unique(row.mode for row in rows)
        self.names = unique(row.competitor for row in rows)
        self.ours = {row.competitor for row in rows if row.ours}
        self.by_key = {(row.case, row.competitor, row.mode): row for row in rows}
        self.cases = list(dict.fromkeys(row.case for row in rows))

    def row(self, case: Case | ModelCase, name: str, mode: str) -> Row | None:
        found = self.by_key.get((case, name, mode))
        return found if found is not None and found.status == OK else None

    def median(self, case: Case | ModelCase, name: str, mode: str) -> float | None:
        row = self.row(case, name, mode)
        return None if row is None or row.times is None else row.times.median

    def best(self, case: Case | ModelCase) -> str | None:
        """Our fastest backend, by the last mode."""
        timed = [(self.median(case, name, self.modes[-1]), name) for name in self.names]
        mine = [(t, name) for t, name in timed if t is not None and name in self.ours]
        return min(mine)[1] if mine else None

    def cell(self, case: Case | ModelCase, name: str) -> str:
        found = [self.by_key.get((case, name, mode)) for mode in self.modes]
        bad = next((row for row in found if row is not None and row.status != OK), None)
        if bad is not None:
            return bad.status
        text = " / ".join(milliseconds(self.median(case, name, mode)) for mode in self.modes)
        last = self.row(case, name, self.modes[-1])
        if last is not None and last.graph_ms is not None:
            text += f" (graph {milliseconds(last.graph_ms)})"
        if last is not None and last.extra_bytes is not None:
            text += f" / {last.extra_bytes / 1e6:.0f} MB"
        return text

    def ratio(self, case: Case | ModelCase, peer: str) -> str:
        """How many times slower and larger than our best the other implementation is."""
        mine = self.best(case)
        if mine is None:
            return "-"
        parts = []
        for mode in self.modes:
            ours, theirs = self.median(case, mine, mode), self.median(case, peer, mode)
            parts.append("-" if ours is None or theirs is None else f"{theirs / ours:.1f}x")
        a, b = (self.row(case, name, self.modes[-1]) for name in (mine, peer))
        if a is not None and b is not None and a.extra_bytes and b.extra_bytes is not None:
            parts.append(f"1/{b.extra_bytes / a.extra_bytes:.1f}")
        return " / ".join(parts)

    def floor(self, case: Case | ModelCase) -> str:
        mine = self.best(case)
        if mine is None:
            return "-"
        rows = [self.row(case, mine, mode) for mode in self.modes]
        return " / ".join(
            "-" if row is None or row.floor_share is None else f"{100 * row.floor_share:.0f} %"
            for row in rows
        )

    def markdown(self) -> str:
        peers = [name for name in self.names if name not in self.ours]
        header = ["B, D, HxW", *self.names, *(f"vs {name}" for name in peers), "of the floor"]
        return table(
            header,
            (
                [
                    case.label,
                    *(self.cell(case, name) for name in self.names),
                    *(self.ratio(case, name) for name in peers),
                    self.floor(case),
                ]
                for case in self.cases
            ),
        )

    def ragged(self) -> str:
        """Time per element of our best, relative to the first case of the same D."""
        lines = []
        first: dict[int, float] = {}
        for case in self.cases:
            assert isinstance(case, Case)
            name = self.best(case)
            median = None if name is None else self.median(case, name, self.modes[-1])
            if name is None or median is None:
                continue
            per_element = median / (case.B * case.D * case.L)
            base = first.setdefault(case.D, per_element)
            picoseconds, ratio = f"{per_element * 1e9:.0f}", f"{per_element / base:.2f}"
            lines.append([case.label, name, picoseconds, ratio])
        header = ["B, D, HxW", "backend", "ps per element", "against the first of this D"]
        return table(header, lines)


def _what(results: Results) -> str:
    e, ceilings = results.environment, results.ceilings
    driver = f", driver {e['driver']}" if e.get("driver") else ""
    cuda = f", CUDA {e['cuda']}" if e.get("cuda") else ""
    where = (
        f"{e['device']}{driver}, torch {e['torch']}{cuda}; commit {str(e['commit'])[:12]}, "
        f"{e['date']}."
    )
    if not ceilings:
        return where
    exp2 = ceilings["exp2_per_second"]
    copied = ceilings["copy_bytes_per_second"] or 0.0
    rate = "not measured" if exp2 is None else f"{exp2:.3g}/s"
    return f"{where} Ceilings measured in the same run: exp {rate}, copy {copied / 1e9:.0f} GB/s."


def markdown(results: Results) -> str:
    """The whole report."""
    parts = [_what(results)]
    sections: dict[tuple[str, str, str], list[Row]] = {}
    whole: dict[tuple[str, str, str], list[Row]] = {}
    for row in results.rows:
        if model_report.is_network(row.op):
            whole.setdefault((row.op, row.mode, row.dtype), []).append(row)
            continue
        sections.setdefault((row.op, row.case.group, row.dtype), []).append(row)
    for (op, group, dtype), rows in sections.items():
        section = _Section(rows)
        modes = " / ".join(mode.replace("_", " + ") for mode in section.modes)
        parts += [f"### {_TITLES[op]}; {dtype}", f"{modes}, median ms, then extra memory"]
        parts.append(section.markdown())
        if group == "ragged":
            parts.append(section.ragged())
    for rows in whole.values():
        parts += [f"### {model_report.title(rows[0])}", model_report.markdown(rows)]
    if whole:
        parts.append("Median ms / peak memory beyond weights and inputs (not counted for graphs).")
        parts += model_report.side_by_side([row for rows in whole.values() for row in rows])
    if scale.SCALING in results.settings:
        parts += ["### Training on several", scale.markdown(results)]
    untimed = [row for row in results.rows if row.status != OK]
    bad = {(r.competitor, r.op, r.dtype, r.status, r.reason or "") for r in untimed}
    if bad:
        parts.append("Not timed:")
        parts.append(
            "\n".join(f"- {c}, {op}, {dtype}: {s} ({why})" for c, op, dtype, s, why in sorted(bad))
        )
    if results.missing:
        parts.append("Missing:")
        parts.append("\n".join(f"- {name}: {why}" for name, why in results.missing.items()))
    return "\n\n".join(parts) + "\n"


def against(old: Results, new: Results, changes: Sequence[Change], tolerance: float) -> str:
    """A table of all measurements in both files, with slower ones marked."""
    parts = []
    if old.environment["device"] != new.environment["device"]:
        parts.append(
            f"Different devices: {old.environment['device']} then, "
            f"{new.environment['device']} now; ratios say little."
        )
    rows = [
        [
            *c.key,
            milliseconds(c.old.median),
            milliseconds(c.new.median),
            f"{c.ratio:.2f}",
            "slower" if c.is_slower(tolerance) else "",
        ]
        for c in sorted(changes, key=lambda c: -c.ratio)
    ]
    header = ["op", "mode", "case", "dtype", "competitor", "then ms", "now ms", "ratio", ""]
    parts.append(table(header, rows))
    return "\n\n".join(parts) + "\n"


def replaced(document: str, begin: str, end: str, text: str) -> str:
    """The document with text between its two marker lines. ValueError if it has none."""
    if document.count(begin) != 1 or document.count(end) != 1:
        raise ValueError(f"the document needs one line {begin!r} and one {end!r}")
    head, rest = document.split(begin)
    tail = rest.split(end)[1]
    return f"{head}{begin}\n{text}{end}{tail}"


def insert(text: str, path: Path) -> None:
    """Put text between the two marker lines of a Markdown file. ValueError without markers."""
    try:
        path.write_text(replaced(path.read_text(), BEGIN, END, text))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
