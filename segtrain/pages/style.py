"""The style sheet of a page, and of a chart outside a page."""

_COLOURS = """
:root {
  --page: #fbfbfa; --card: #ffffff; --ink: #1d1f21; --soft: #62676d; --line: #e4e5e3;
  --accent: #3b6ea8; --second: #b9c9dc; --third: #8fb39b; --grid: #ecedeb;
  --good: #2c7a4b; --warn: #8a6100; --bad: #b3261e;
  --good-tint: #e8f3ec; --warn-tint: #fbf3df; --bad-tint: #fbeae8;
  --s0: #0072b2; --s1: #d55e00; --s2: #008a63; --s3: #b5508c; --s4: #a87400; --s5: #3a9ad0;
  --s6: #7a7a7a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #16181a; --card: #1e2124; --ink: #e4e5e6; --soft: #9aa0a6; --line: #33373b;
    --accent: #7aa9df; --second: #41566e; --third: #4d7259; --grid: #2a2e32;
    --good: #7fcf9e; --warn: #e2bd66; --bad: #f2938c;
    --good-tint: #1c2b22; --warn-tint: #2d2718; --bad-tint: #33201f;
    --s0: #4a9fe0; --s1: #f08142; --s2: #2cbd92; --s3: #df97c3; --s4: #e3b23a; --s5: #a3d8f7;
    --s6: #a0a0a0;
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
svg .mean { stroke: var(--ink); stroke-width: 2; }
svg .seed { fill: var(--accent); }
.interval line { stroke-width: 2; }
.interval circle, .interval polygon { fill: var(--page); stroke-width: 2; fill-opacity: 1; }
.interval line, .interval circle, .interval polygon { stroke: var(--accent); }
.interval.better line, .interval.better circle { stroke: var(--good); }
.interval.better circle { fill: var(--good); }
.interval.worse line, .interval.worse circle { stroke: var(--bad); }
.interval.worse circle { fill: var(--bad); }
.interval.not_corrected line, .interval.not_corrected polygon { stroke: var(--warn); }
.interval.no_verdict line, .interval.no_verdict circle { stroke: var(--soft); }
.series { stroke: var(--own); color: var(--own); }
.series polyline { fill: none; stroke-width: 2; } .series .sample { stroke-width: 3; }
.series .band { fill: var(--own); fill-opacity: 0.12; stroke: none; }
.series circle { fill: var(--own); fill-opacity: 1; stroke: none; }
.series .lead { stroke-width: 1; stroke-opacity: 0.5; stroke-dasharray: none; }
.series text { stroke: none; }
.series:hover polyline { stroke-width: 4; } .series:hover .band { fill-opacity: 0.35; }
.series:hover text { font-weight: 700; }
.series.base { --own: var(--ink); } .series.base polyline { stroke-width: 3; }
.series.s0 { --own: var(--s0); } .series.s1 { --own: var(--s1); } .series.s2 { --own: var(--s2); }
.series.s3 { --own: var(--s3); } .series.s4 { --own: var(--s4); } .series.s5 { --own: var(--s5); }
.series.s6 { --own: var(--s6); }
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
.note { margin-bottom: 14px; max-width: 76ch; overflow-wrap: anywhere; }
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
.fixed td:first-child, .fixed th:first-child {
  position: sticky; left: 0; background: var(--page); max-width: 300px;
  overflow-wrap: break-word;
}
.fixed td.number, .fixed th.number { padding-left: 10px; }
.upright th:not(:first-child) { padding-right: 4px; }
.upright th:not(:first-child) span {
  writing-mode: vertical-rl; transform: rotate(180deg); max-height: 150px; overflow: hidden;
}
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
svg.chart { min-width: 720px; }
.verdicts { list-style: none; margin: 18px 0 0; padding: 0; }
.verdicts li {
  border-left: 4px solid var(--line); background: var(--card); border-radius: 0 8px 8px 0;
  padding: 9px 14px; margin-bottom: 8px; overflow-wrap: anywhere;
}
.verdicts b { font-weight: 600; margin-right: 6px; }
.verdicts li.better { border-color: var(--good); background: var(--good-tint); }
.verdicts li.worse { border-color: var(--bad); background: var(--bad-tint); }
.verdicts li.not_corrected {
  border-color: var(--warn); border-left-style: dashed; background: var(--warn-tint);
}
.verdicts li.no_verdict { border-left-style: dotted; border-color: var(--soft); }
.verdicts .better b { color: var(--good); } .verdicts .worse b { color: var(--bad); }
.verdicts .not_corrected b { color: var(--warn); }
.broken td { overflow-wrap: anywhere; }
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
  .fixed td:first-child, .fixed th:first-child { max-width: 36vw; font-size: 13px; }
}
"""
STYLE = f"{_COLOURS}{_PAGE}{_CHARTS}"
"""The style sheet of a page."""
CHART_STYLE = f"{_COLOURS}text {{ font-family: system-ui, sans-serif; }}{_CHARTS}"
"""The style sheet inside a chart that is a file of its own."""
