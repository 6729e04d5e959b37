"""The style sheet of a page, and of a chart outside a page."""

_COLOURS = """
:root {
  --page: #fbfbfa; --card: #ffffff; --ink: #1d1f21; --soft: #62676d; --line: #e4e5e3;
  --accent: #3b6ea8; --second: #b9c9dc; --third: #8fb39b; --grid: #ecedeb;
  --good: #2c7a4b; --warn: #8a6100; --bad: #b3261e;
  --good-tint: #e8f3ec; --warn-tint: #fbf3df; --bad-tint: #fbeae8;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #16181a; --card: #1e2124; --ink: #e4e5e6; --soft: #9aa0a6; --line: #33373b;
    --accent: #7aa9df; --second: #41566e; --third: #4d7259; --grid: #2a2e32;
    --good: #7fcf9e; --warn: #e2bd66; --bad: #f2938c;
    --good-tint: #1c2b22; --warn-tint: #2d2718; --bad-tint: #33201f;
  }
}
"""
_CHARTS = """
svg text { fill: var(--soft); font-size: 12px; }
svg .grid { stroke: var(--grid); }
svg .axis-line { stroke: var(--line); }
svg .train { fill: var(--accent); } svg .val { fill: var(--warn); }
svg .test { fill: var(--good); }
svg circle { fill-opacity: 0.55; }
svg .ink { fill: var(--ink); }
svg .zero { stroke: var(--soft); stroke-dasharray: 3 3; }
.interval line { stroke-width: 2; } .interval circle { fill-opacity: 1; }
.interval.better line { stroke: var(--good); } .interval.better circle { fill: var(--good); }
.interval.worse line { stroke: var(--bad); } .interval.worse circle { fill: var(--bad); }
.interval.none line { stroke: var(--accent); } .interval.none circle { fill: var(--accent); }
"""
_PAGE = """
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}
main { max-width: 1120px; margin: 0 auto; padding: 40px 24px 80px; }
h1 { font-size: 26px; font-weight: 600; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 18px; font-weight: 600; margin: 0 0 4px; }
h3 { font-size: 15px; font-weight: 600; margin: 20px 0 6px; }
section { margin-top: 44px; }
p { margin: 0 0 10px; }
.note, .soft { color: var(--soft); }
.note { margin-bottom: 14px; max-width: 76ch; }
nav { margin-top: 14px; font-size: 14px; }
nav a { color: var(--accent); text-decoration: none; margin-right: 16px; }
nav a:hover { text-decoration: underline; }
.verdict { border-radius: 8px; padding: 12px 16px; margin-top: 18px; overflow-wrap: anywhere; }
.verdict b { display: block; }
.fine { background: var(--good-tint); } .fine b { color: var(--good); }
.warnings { background: var(--warn-tint); } .warnings b { color: var(--warn); }
.refused { background: var(--bad-tint); } .refused b { color: var(--bad); }
.figures { display: flex; flex-wrap: wrap; gap: 12px; margin-top: 18px; }
.figures div {
  background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 10px 16px; min-width: 130px; flex: 1;
}
.figures b { display: block; font-size: 20px; font-weight: 600; }
.figures span { color: var(--soft); font-size: 13px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th {
  text-align: left; font-weight: 500; font-size: 13px; color: var(--soft);
  border-bottom: 1px solid var(--line); padding: 6px 10px 6px 0; vertical-align: bottom;
  white-space: nowrap;
}
td { padding: 5px 10px 5px 0; border-bottom: 1px solid var(--line); vertical-align: middle; }
tbody tr:last-child td { border-bottom: none; }
.number { text-align: right; white-space: nowrap; }
.swatch {
  display: inline-block; width: 13px; height: 13px; border-radius: 3px; margin-right: 8px;
  vertical-align: -2px; border: 1px solid rgba(128, 128, 128, 0.5);
}
.wide { width: 40%; }
.bars { min-width: 160px; margin-right: 24px; }
.bars div { height: 7px; margin: 2px 0; border-radius: 2px; background: var(--accent); }
.bars div + div { background: var(--second); }
.bars div + div + div { background: var(--third); }
.track {
  background-image: linear-gradient(to right, var(--grid) 1px, transparent 1px);
  background-size: calc(100% / 6) 100%; border-right: 1px solid var(--grid);
}
.axis { display: flex; justify-content: space-between; font-size: 11px; }
.legend span.name { display: inline-block; margin-right: 16px; font-size: 13px; }
.key { font-size: 13px; color: var(--soft); margin: 10px 0 0; }
.key i {
  display: inline-block; width: 18px; height: 7px; border-radius: 2px; margin: 0 6px 1px 12px;
  background: var(--accent);
}
.key .val { background: var(--second); } .key .test { background: var(--third); }
.key .disc.val { background: var(--warn); } .key .disc.test { background: var(--good); }
details {
  background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 10px 16px; margin-bottom: 10px;
}
summary { cursor: pointer; }
summary .badge { margin-left: 8px; }
details ul { margin: 10px 0 4px; padding-left: 18px; }
details li { margin-bottom: 6px; overflow-wrap: anywhere; font-size: 14px; }
.badge { font-size: 12px; border-radius: 10px; padding: 1px 9px; white-space: nowrap; }
.badge.bad { background: var(--bad-tint); color: var(--bad); }
.badge.warn { background: var(--warn-tint); color: var(--warn); }
svg.chart { min-width: 560px; }
svg.key { display: inline-block; vertical-align: -1px; margin-right: 6px; }
.verdicts { list-style: none; margin: 18px 0 0; padding: 0; }
.verdicts li {
  border-left: 4px solid var(--line); background: var(--card); border-radius: 0 8px 8px 0;
  padding: 9px 14px; margin-bottom: 8px; overflow-wrap: anywhere;
}
.verdicts b { font-weight: 600; margin-right: 6px; }
.verdicts .better { border-color: var(--good); } .verdicts .better b { color: var(--good); }
.verdicts .worse { border-color: var(--bad); } .verdicts .worse b { color: var(--bad); }
.verdicts .unsure { border-color: var(--warn); } .verdicts .unsure b { color: var(--warn); }
.heat { display: block; padding: 4px 8px; margin: -3px -6px -3px 0; border-radius: 4px; }
td .best { font-weight: 700; }
.strip.four { grid-template-columns: repeat(4, 1fr); }
.strip small { display: block; color: var(--soft); margin-top: 3px; }
.columns { display: flex; flex-wrap: wrap; gap: 32px; align-items: flex-start; }
.columns > div { flex: 1; min-width: 360px; }
.columns .columns > div { min-width: 160px; }
.columns h3 { margin-top: 0; }
figure {
  margin: 0 0 18px; background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 12px;
}
.strip { display: grid; grid-template-columns: repeat(3, 1fr); gap: 8px; }
.sheet { display: grid; gap: 8px; }
figure img { width: 100%; display: block; border-radius: 4px; }
img.sharp { image-rendering: pixelated; }
figcaption { margin-top: 8px; font-size: 13px; overflow-wrap: anywhere; }
.sheet small { color: var(--soft); }
code, pre { font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre {
  background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 12px 16px; overflow-x: auto; margin: 0 0 12px; white-space: pre-wrap;
  overflow-wrap: anywhere;
}
footer { margin-top: 56px; color: var(--soft); font-size: 13px; }
svg { display: block; max-width: 100%; height: auto; }
@media (max-width: 640px) {
  .strip { grid-template-columns: 1fr; } .strip.four { grid-template-columns: 1fr 1fr; }
  main { padding: 24px 14px; }
}
"""
STYLE = f"{_COLOURS}{_PAGE}{_CHARTS}"
"""The style sheet of a page."""
CHART_STYLE = f"{_COLOURS}text {{ font-family: system-ui, sans-serif; }}{_CHARTS}"
"""The style sheet inside a chart that is a file of its own."""
