"""The table of faults: how many of the tests of each fault passed."""

from __future__ import annotations

from collections import defaultdict

import pytest
from _pytest.terminal import TerminalReporter

collect_ignore = ["slow.py", "bad_data.py"]  # plugins, which the plugin loader is to load

FAULTS = 60

_outcomes: dict[str, list[str]] = defaultdict(list)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> object:
    report = yield
    for mark in item.iter_markers("fault"):
        if report.when == "call" or report.outcome != "passed":
            for name in mark.args:
                _outcomes[name].append(report.outcome)
    return report


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    if not _outcomes:
        return
    terminalreporter.section("faults")
    for name in (f"F{number}" for number in range(1, FAULTS + 1)):
        outcomes = _outcomes[name]
        tried = [outcome for outcome in outcomes if outcome != "skipped"]
        skipped = len(outcomes) - len(tried)
        text = f"{tried.count('passed')} of {len(tried)} passed" if tried else "not tried"
        terminalreporter.write_line(
            f"{name:4} {text}" + (f", {skipped} skipped" if skipped else "")
        )
