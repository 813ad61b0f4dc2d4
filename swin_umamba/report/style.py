"""Style sheet of the page, light and dark."""

from __future__ import annotations

from swin_umamba.drawing.overlays import ADDED, CONFUSED, CORRECT, MISSED

CSS = """
:root {
  color-scheme: light dark;
  --paper: #f6f7fa; --card: #ffffff; --ink: #1f2430; --faint: #667085; --line: #e3e7ee;
  --accent: #4c5fd5;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #12151b; --card: #1a1e26; --ink: #e8ebf2; --faint: #9aa3b5; --line: #2b303b;
    --accent: #8f9dff;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
main { max-width: 1160px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 20px; margin: 44px 0 14px; letter-spacing: -0.005em; }
h3 { font-size: 16px; margin: 24px 0 10px; }
p { margin: 6px 0; max-width: 75ch; }
.faint { color: var(--faint); }
.small { font-size: 14px; }
.card {
  background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 18px 20px;
}
.tiles {
  display: grid; gap: 12px; margin-top: 24px;
  grid-template-columns: repeat(auto-fit, minmax(140px, 1fr));
}
.tile { padding: 14px 16px; }
.tile b {
  display: block; font-size: 26px; line-height: 1.25; white-space: nowrap;
  font-variant-numeric: tabular-nums;
}
.tile span { color: var(--faint); font-size: 13.5px; display: block; line-height: 1.35; }
.tile span:first-child { color: var(--ink); font-weight: 600; }
img.curves { display: block; width: 100%; height: auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 7px 12px; border-bottom: 1px solid var(--line); }
th { font-weight: 600; color: var(--faint); font-size: 13.5px; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
tr:last-child td { border-bottom: 0; }
.facts td { text-align: left; font-size: 14.5px; vertical-align: top; overflow-wrap: anywhere; }
.facts td:first-child { color: var(--faint); width: 34%; overflow-wrap: normal; }
.columns {
  display: grid; gap: 16px; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr));
}
.columns h3:first-child { margin-top: 0; }
.swatch {
  display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 8px;
}
.legend { display: flex; flex-wrap: wrap; gap: 4px 20px; font-size: 14px; margin: 0 0 12px; }
.case { margin-bottom: 16px; }
.case header {
  display: flex; gap: 14px; align-items: baseline; margin-bottom: 10px; flex-wrap: wrap;
}
.case header b { overflow-wrap: anywhere; }
.dsc { font-variant-numeric: tabular-nums; color: var(--accent); font-weight: 650; }
.panels { display: grid; grid-template-columns: repeat(4, 1fr); gap: 12px; }
@media (max-width: 760px) { .panels { grid-template-columns: repeat(2, 1fr); } }
figure { margin: 0; }
figcaption { font-size: 13.5px; color: var(--faint); margin-top: 5px; }
.panel {
  display: block; width: 100%; border-radius: 6px;
  background: #000 var(--input) center / 100% 100% no-repeat;
}
.times { display: grid; grid-template-columns: repeat(6, 1fr); gap: 10px; }
.times img { display: block; width: 100%; border-radius: 6px; }
svg.strip { display: block; width: 100%; height: auto; }
svg.strip text { fill: var(--faint); font-size: 12px; }
svg.strip text.name { fill: var(--ink); font-size: 13px; }
svg.strip line { stroke: var(--line); }
svg.strip line.mean { stroke: var(--ink); stroke-width: 2; }
svg.strip circle { fill-opacity: 0.65; }
details summary { cursor: pointer; color: var(--accent); margin: 12px 0; }
a { color: var(--accent); }
"""

ERRORS = {
    "correct": CORRECT,
    "false positive": ADDED,
    "missed": MISSED,
    "wrong class": CONFUSED,
}
