"""`kuaimai lint` refuses before a run what a run would refuse."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kuaimai.cli import main

MINIMAL = "name: orders\nsource: {method: erp.trade.outstock.simple.query}\n"


@pytest.fixture
def linted(tmp_path, capsys):
    """A function that lints a pipeline and returns the exit code and what was printed."""

    def linted(text):
        (tmp_path / "orders.yaml").write_text(text, encoding="utf-8")
        return main(["lint", str(tmp_path)]), capsys.readouterr().out

    return linted


def test_a_pipeline_that_runs(linted):
    code, told = linted(MINIMAL)
    assert code == 0
    assert told.endswith("orders.yaml: runs, as kuaimai_orders\n")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("batchsize: 5\n", "did you mean 'batch_size'?"),
        (
            "step: nowhere_to_be_found:margin\n",
            "step nowhere_to_be_found:margin: its module cannot be imported",
        ),
        ("step: json:no_such_function\n", "the module has no function 'no_such_function'"),
    ],
)
def test_a_mistake_is_told_before_it_runs(linted, line, told):
    code, text = linted(MINIMAL + line)
    assert code == 1
    assert "orders.yaml: refused" in text
    assert told in text


def test_a_reader_who_has_seen_enough_is_no_error():
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "kuaimai.cli", "lint", str(root / "include" / "pipelines")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=root / "plugins"
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1
