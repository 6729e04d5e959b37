"""The table of ``make faults``: how many tests of each fault passed, and which failed."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field

import pytest
from _pytest.terminal import TerminalReporter

TITLES = {
    "F1": "killed at random moments",
    "F2": "killed, temporary files on another volume",
    "F3": "order of write, sync and rename",
    "F4": "damaged checkpoints",
    "F5": "full disk",
    "F6": "read-only run directory",
    "F7": "run directory in use",
    "F8": "best and previous checkpoints",
    "F9": "killed between two checkpoint files",
    "F10": "resume is exact, one process",
    "F11": "resume is exact, two processes",
    "F12": "resume with other workers",
    "F13": "resume with other processes",
    "F14": "resume with mixed precision, accumulation",
    "F15": "a part of the checkpoint is missing",
    "F16": "resume with another configuration",
    "F17": "random numbers of processes and workers",
    "F18": "two runs of one seed",
    "F19": "killed in validation or the first step",
    "F20": "SIGTERM and the signals of schedulers",
    "F21": "SIGTERM to several processes",
    "F22": "Ctrl-C, once and twice",
    "F23": "a process dies, fails or hangs",
    "F24": "wrong launch and restarts",
    "F25": "a data worker dies, fails or hangs",
    "F26": "shared memory too small",
    "F27": "out of memory",
    "F28": "truncated images and masks",
    "F29": "masks of another size",
    "F30": "EXIF orientation",
    "F31": "labels out of range",
    "F32": "labels with gaps",
    "F33": "masks of every mode",
    "F34": "missing files and partners",
    "F35": "too few samples",
    "F36": "splits that overlap",
    "F37": "all pixels ignored",
    "F38": "a class without pixels",
    "F39": "scores of several processes",
    "F40": "tiny images",
    "F41": "huge images",
    "F42": "unusual names and lists",
    "F43": "links, pipes and devices",
    "F44": "channels of images",
    "F45": "files and stores that vanish",
    "F46": "NaN in a step",
    "F47": "overflow of fp16",
    "F48": "a loss that explodes",
    "F49": "NaN in validation",
    "F50": "wrong keys and values",
    "F51": "unknown names",
    "F52": "wrong class weights",
    "F53": "weights that do not fit",
    "F54": "contradictory classes",
    "F55": "code in checkpoints",
    "F56": "code in configurations",
    "F57": "paths that lead outside",
    "F58": "archives that lead outside",
    "F59": "control characters in names",
    "F60": "secrets of the environment",
}


@dataclass
class _Fault:
    """What the tests of a fault came to."""

    outcomes: dict[str, str] = field(default_factory=dict)  # by the test
    seconds: float = 0.0

    def count(self, outcome: str) -> int:
        return list(self.outcomes.values()).count(outcome)

    def text(self) -> str:
        tried = len(self.outcomes) - self.count("skipped")
        skipped = f", {self.count('skipped')} skipped" if self.count("skipped") else ""
        passed = f"{self.count('passed')} of {tried} passed" if tried else "not tried"
        return f"{passed}{skipped}"


_faults = {name: _Fault() for name in TITLES}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A misspelt number is an error, not a row that is missing."""
    for item in items:
        for mark in item.iter_markers("fault"):
            unknown = [name for name in mark.args if name not in TITLES]
            if unknown or not mark.args:
                raise pytest.UsageError(f"{item.nodeid}: unknown faults {unknown}; use F1 to F60")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """The report takes the numbers along, also from a process of its own to the main one."""
    report = yield
    report.user_properties += [
        ("fault", name) for mark in item.iter_markers("fault") for name in mark.args
    ]
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    for name in {name for key, name in report.user_properties if key == "fault"}:
        fault = _faults[str(name)]
        fault.seconds += report.duration
        if report.when == "call" or report.outcome != "passed":
            worse = fault.outcomes.get(report.nodeid) == "failed"
            fault.outcomes[report.nodeid] = "failed" if worse else report.outcome


def pytest_terminal_summary(terminalreporter: TerminalReporter, config: pytest.Config) -> None:
    """Print the table if faults were asked for by their marker."""
    if config.option.markexpr != "fault":
        return
    terminalreporter.section("faults")
    for name, title in TITLES.items():
        fault = _faults[name]
        seconds = f"{fault.seconds:5.0f} s" if fault.outcomes else ""
        terminalreporter.write_line(f"{name:4} {title:42} {fault.text():22} {seconds}".rstrip())
    outcomes = {test: found for fault in _faults.values() for test, found in fault.outcomes.items()}
    failed = sorted(test for test, found in outcomes.items() if found == "failed")
    passed = list(outcomes.values()).count("passed")
    tried = sum(1 for fault in _faults.values() if fault.count("passed") + fault.count("failed"))
    terminalreporter.write_line(
        f"{tried} of {len(TITLES)} faults tried: {passed} tests passed, {len(failed)} failed"
    )
    for test in failed:
        numbers = " ".join(name for name, fault in _faults.items() if test in fault.outcomes)
        terminalreporter.write_line(f"failed: {test} ({numbers})")
