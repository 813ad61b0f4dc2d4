"""The tables and plots of README and docs, generated from the results files."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measuring import results
from benchmarks.measuring.results import Results, Row
from benchmarks.measuring.tables import milliseconds, table
from benchmarks.models import kernel_classes
from benchmarks.ops import sweep
from benchmarks.render import accuracy_report, model_report, plot, pretraining_report, report

_FOLDER = Path("benchmarks/results")
# Picture -> the results that it shows, and which of their plots it is.
_PICTURES = {
    "ops_h100_float16.png": ("ops_h100.json", "ss2d_forward_backward_table_float16.png"),
    "ops_h100_sizes.png": ("ops_h100_sizes.json", "ss2d_forward_backward_sizes_float16.png"),
}
# Batches in the table, one per image size.
_INFERENCE_BATCHES = (30, 1)
_TRAINING_BATCHES = (30, 13, 12, 2)
# The rows of README's table.
_SHOWN_SCAN = "30, 192, 80x80"
_SHOWN_MODELS = (
    ("swin_umamba", "training", 30),
    ("swin_umamba_d", "training", 30),
    ("swin_umamba_d", "inference", 1),
)
_DATASETS = {
    "Dataset801_Nuclei": "nuclei (microscopy)",
    "Dataset804_Hippocampus": "hippocampus (MRI)",
    "Dataset802_Polyps": "polyps (endoscopy)",
    "PolypGen": "polyps (endoscopy)",
    "PolypCross": "polyps of another source",
}
# The columns of the table of pretraining.
_NETWORKS = ("dynunet", "resenc_m")
_STARTS = (
    "swin_umamba_d+vmamba_tiny+scratch",
    "swin_umamba_d+vmamba_tiny+pretrained",
    "swin_umamba_d+vmamba_v2_tiny_s1l8+pretrained",
)
_PRETRAINED = ("pretraining_polyps_h200.json", "pretraining_nuclei_hippocampus_h200.json")

# The rows of the table of learning rates.
_STEM, _DAGGER_V2 = "swin_umamba+vmamba_tiny", "swin_umamba_d+vmamba_v2_tiny_s1l8"
_RATES = {
    "dynunet": "nnU-Net's network",
    f"{_STEM}+scratch": "Swin-UMamba, from scratch",
    f"{_STEM}+pretrained": "Swin-UMamba, pretrained",
    f"{_STEM}+pretrained, encoder's rate a fifth": "the same, `encoder_lr` a fifth of `lr`",
    f"{_DAGGER_V2}+pretrained": "† v2, pretrained",
    f"{_DAGGER_V2}+pretrained, layer_decay 0.8": "the same, `layer_decay` 0.8",
}


def _median(row: Row) -> float:
    assert row.times is not None, f"{row.key} was not timed"
    return row.times.median


def _ratio(ours: float, theirs: float) -> str:
    return f"{theirs / ours:.1f}x"


def _megabytes(row: Row) -> str:
    return "-" if row.extra_bytes is None else f"{row.extra_bytes / 1e6:.0f}"


def scans(found: Results) -> str:
    """`ss2d` forward and backward: our backends, other implementations, ratios, memory."""
    rows = {
        (row.case, row.competitor): row
        for row in found.rows
        if row.op == "ss2d" and row.mode == "forward_backward"
    }

    def times(row: Row) -> str:
        graph = "-" if row.graph_ms is None else milliseconds(row.graph_ms)
        return f"{milliseconds(_median(row))}, {graph}"

    def over(ours: Row, theirs: Row) -> str:
        graphs = "-"
        if ours.graph_ms is not None and theirs.graph_ms is not None:
            graphs = _ratio(ours.graph_ms, theirs.graph_ms)
        return f"{_ratio(_median(ours), _median(theirs))}, {graphs}"

    lines = []
    for case in dict.fromkeys(case for case, _ in rows):
        cuda, triton, release, vmamba = (
            rows[case, name] for name in ("cuda", "triton", "release", "vmamba")
        )
        lines.append(
            [
                case.label,
                *(times(row) for row in (cuda, triton, release, vmamba)),
                over(cuda, release),
                over(cuda, vmamba),
                over(triton, release),
                f"{_megabytes(cuda)}, {_megabytes(release)} MB",
            ]
        )
    header = ["B, D, HxW", "`cuda`", "`triton`", "release", "VMamba"]
    header += ["`cuda` over release", "over VMamba", "`triton` over release"]
    header += ["extra memory: `cuda`, release"]
    return table(header, lines)


def models(found: Results) -> str:
    """Whole models: eager and as graphs, compared with the original, time and peak memory."""
    rows = {(row.op, row.mode, row.case, row.competitor): row for row in found.rows}
    lines = []
    for op in ("swin_umamba", "swin_umamba_d"):
        for mode, batches in (("training", _TRAINING_BATCHES), ("inference", _INFERENCE_BATCHES)):
            cases = dict.fromkeys(case for o, m, case, _ in rows if (o, m) == (op, mode))
            for case in sorted(cases, key=lambda case: -case.B):
                if case.B not in batches:
                    continue
                ours, graph, release = (
                    rows[op, mode, case, name] for name in ("ours", "ours, graph", "release")
                )
                best = min(_median(ours), _median(graph))
                lines.append(
                    [
                        f"{model_report.TITLES[op]}, {mode}, {case.B} at {case.H}x{case.W}",
                        *(milliseconds(_median(row)) for row in (ours, graph, release)),
                        _ratio(best, _median(release)),
                        f"{_megabytes(ours)}, {_megabytes(release)} MB",
                    ]
                )
    header = ["model, B at HxW", "ours", "ours, graph", "release", "best against release"]
    return table([*header, "peak memory: ours, release"], lines)


def speed(scan: Results, model: Results) -> str:
    """README's four rows: the scan, two trainings, one image's inference."""
    scans_ = {
        row.competitor: row
        for row in scan.rows
        if (row.op, row.mode) == ("ss2d", "forward_backward") and row.case.label == _SHOWN_SCAN
    }
    found = [("the scan alone, forward and backward, 30 x 192 x 80 x 80", scans_)]
    for op, mode, batch in _SHOWN_MODELS:
        rows = {
            row.competitor: row
            for row in model.rows
            if (row.op, row.mode, row.case.B) == (op, mode, batch)
            and (row.case.H, row.case.W) == (320, 320)
        }
        images = "1 image" if batch == 1 else f"{batch} images"
        found.append((f"{model_report.TITLES[op]}, {mode}, {images} of 320 x 320", rows))
    lines = []
    for title, rows in found:
        ours = rows["cuda"] if "cuda" in rows else rows["ours"]
        graph = ours.graph_ms if "cuda" in rows else _median(rows["ours, graph"])
        release = _median(rows["release"])
        assert graph is not None
        times = [milliseconds(value) for value in (_median(ours), graph, release)]
        best = _ratio(min(_median(ours), graph), release)
        memory = f"{_megabytes(ours)}, {_megabytes(rows['release'])} MB"
        lines.append([title, *times, best, memory])
    header = [
        "",
        "ours, eager",
        "ours, CUDA graph",
        "original, eager",
        "speedup",
        "memory: ours, original",
    ]
    return table(header, lines)


def accuracy(facts: dict[str, Any]) -> str:
    """DSC of two models and nnU-Net's network, and the difference case by case."""
    lines = []
    for dataset, title in _DATASETS.items():
        if dataset not in facts["settings"]["datasets"]:
            continue
        runs = {
            model: accuracy_report.scored_runs(facts, dataset, model)
            for model in ("dynunet", "swin_umamba", "swin_umamba_d")
        }
        line = [title, _means(runs["dynunet"])]
        for model in ("swin_umamba", "swin_umamba_d"):
            against = accuracy_report.difference(runs[model], runs["dynunet"], "dsc")
            line += [_means(runs[model]), against]
        lines.append(line)
    header = ["DSC", "nnU-Net's network", "Swin-UMamba", "difference"]
    return table([*header, "Swin-UMamba†", "difference"], lines)


def pretrained(*files: dict[str, Any]) -> str:
    """DSC of Swin-UMamba†, pretrained and from scratch, and of nnU-Net's networks."""
    lines = []
    for facts in files:
        for dataset in facts["settings"]["datasets"]:
            runs = {
                model: accuracy_report.scored_runs(facts, dataset, model)
                for model in (*_NETWORKS, *_STARTS)
            }
            line = [_DATASETS[dataset], *(_means(found) for found in runs.values())]
            for start in _STARTS[1:]:
                line.append(accuracy_report.difference(runs[start], runs["dynunet"], "dsc"))
            lines.append(line)
    header = ["DSC", "nnU-Net's network", "ResEnc-M", "† from scratch", "† pretrained"]
    header += ["† v2 pretrained", "† pretrained - nnU-Net's", "† v2 pretrained - nnU-Net's"]
    return table(header, lines)


def stem(facts: dict[str, Any]) -> str:
    """DSC of Swin-UMamba, pretrained with its stem and from scratch, and of nnU-Net's network."""
    lines = []
    for dataset in facts["settings"]["datasets"]:
        network, scratch, start = (
            accuracy_report.scored_runs(facts, dataset, model)
            for model in ("dynunet", f"{_STEM}+scratch", f"{_STEM}+pretrained")
        )
        line = [_DATASETS[dataset], *map(_means, (network, scratch, start))]
        line += [accuracy_report.difference(start, each, "dsc") for each in (network, scratch)]
        lines.append(line)
    header = ["DSC", "nnU-Net's network", "from scratch", "pretrained"]
    return table([*header, "pretrained - nnU-Net's", "pretrained - from scratch"], lines)


def rates(facts: dict[str, Any]) -> str:
    """DSC of each arm at its learning rate, and the difference from nnU-Net's network."""
    datasets = facts["settings"]["datasets"]
    lines = []
    for model in facts["settings"]["models"]:
        line = [_RATES[model]]
        for dataset in datasets:
            runs, baseline = (
                accuracy_report.scored_runs(facts, dataset, each) for each in (model, "dynunet")
            )
            line += [f"{runs[0]['lr']:g}", _means(runs)]
            against = accuracy_report.difference(runs, baseline, "dsc")
            line.append("" if model == "dynunet" else against)
        lines.append(line)
    header = [""]
    for dataset in datasets:
        header += ["`lr`", f"DSC, {_DATASETS[dataset]}", "difference"]
    return table(header, lines)


def _means(runs: Sequence[dict[str, Any]]) -> str:
    """The mean over cases of each seed."""
    values = [accuracy_report.case_values(run["scores"], "dsc").values() for run in runs]
    return "; ".join(f"{sum(scores) / len(scores):.3f}" for scores in values)


@dataclass(frozen=True)
class Table:
    """A table of a page: its marker name, the results it is made from, and the function."""

    page: str
    name: str
    files: tuple[str, ...]
    make: Callable[..., str]


_TABLES = (
    Table("README.md", "speed", ("ops_h100.json", "model_h100.json"), speed),
    Table("README.md", "accuracy", ("pretraining_seeds_h200.json",), stem),
    Table("docs/performance.md", "scans", ("ops_h100.json",), scans),
    Table("docs/performance.md", "models", ("model_h100.json",), models),
    Table("docs/performance.md", "classes", ("classes_h200.json",), kernel_classes.markdown),
    Table("docs/performance.md", "accuracy", ("accuracy_pair_h200.json",), accuracy),
    Table("docs/pretraining.md", "accuracy", _PRETRAINED, pretrained),
    Table("docs/pretraining.md", "rates", ("pretraining_rates_h200.json",), rates),
    Table("docs/pretraining.md", "seeds", ("pretraining_seeds_h200.json",), stem),
)
PAGES = tuple(dict.fromkeys(each.page for each in _TABLES))


def _read(path: Path) -> Any:
    for load in (accuracy_report.load, kernel_classes.load):
        found: Any = load(path)
        if found is not None:
            return found
    return results.load(path)


def markdown_of(path: Path) -> str:
    """The Markdown report of any results file."""
    trained = accuracy_report.load(path)
    if trained is not None:
        if "pretraining" in trained:
            return pretraining_report.markdown(trained)
        return accuracy_report.markdown(trained)
    swept = sweep.load(path)
    return report.markdown(results.load(path)) if swept is None else sweep.markdown(*swept)


def with_table(document: str, name: str, text: str) -> str:
    """The document with the table of this name replaced. ValueError if it has none."""
    return report.replaced(
        document, f"<!-- table: {name} -->", f"<!-- table: {name} end -->", f"{text}\n"
    )


def texts(root: Path) -> Iterator[tuple[Path, str]]:
    """Every Markdown file generated from results, below `root`, with its expected content."""
    folder = root / _FOLDER
    for made in sorted(folder.glob("*.md")):
        yield made, markdown_of(made.with_suffix(".json")) + "\n"
    for page in PAGES:
        document = (root / page).read_text(encoding="utf-8")
        for each in _TABLES:
            if each.page == page:
                text = each.make(*(_read(folder / file) for file in each.files))
                document = with_table(document, each.name, text)
        yield root / page, document


def stale(root: Path) -> list[Path]:
    """The Markdown files that do not match the results."""
    return [path for path, text in texts(root) if path.read_text(encoding="utf-8") != text]


def remake(root: Path) -> list[Path]:
    """Write tables and pictures; returns their paths."""
    written = []
    for path, text in list(texts(root)):
        path.write_text(text, encoding="utf-8")
        written.append(path)
    folder = root / _FOLDER
    with tempfile.TemporaryDirectory() as scratch:
        for picture, (file, drawn) in _PICTURES.items():
            plot.plot(results.load(folder / file), Path(scratch))
            shutil.copy(Path(scratch) / drawn, folder / picture)
            written.append(folder / picture)
    return written
