"""Figures that the end-to-end tests measure, shown at the end; nothing depends on them."""

from __future__ import annotations

import pytest

_FIGURES = pytest.StashKey[dict[str, float]]()


@pytest.fixture(scope="session")
def figures(pytestconfig) -> dict[str, float]:
    """What was measured, in seconds from queued to end, by name."""
    return pytestconfig.stash.setdefault(_FIGURES, {})


def pytest_terminal_summary(terminalreporter, config) -> None:
    for name, seconds in config.stash.get(_FIGURES, {}).items():
        terminalreporter.write_line(f"{name}: {seconds:.1f} s from queued to end")
