"""The two commands that a newcomer tries first."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest
from airflow_home import PATIENCE

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(
    version("apache-airflow").startswith("2."), reason="the demo runs Airflow 3.3"
)


@pytest.fixture
def start(tmp_path):
    """Start the demo as a terminal would: in a foreground process group of its own."""
    started = []

    def begin(*arguments: str) -> subprocess.Popen[str]:
        demo = subprocess.Popen(
            [sys.executable, str(ROOT / "demo" / "run.py"), *arguments],
            env={**os.environ, "KUAIMAI_DEMO": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(demo)
        return demo

    yield begin
    for demo in started:
        if demo.poll() is None:
            os.killpg(demo.pid, signal.SIGINT)
            demo.wait(timeout=PATIENCE)
        demo.stdout.close()


def of_the_demo(folder: Path) -> dict[int, str]:
    """Return every process on this machine that belongs to the demo in this folder."""
    found = {}
    for process in psutil.process_iter():
        try:
            about = [*process.cmdline(), process.cwd(), *process.environ().values()]
        except (psutil.Error, OSError):
            continue
        if any(str(folder) in each for each in about) and process.pid != os.getpid():
            found[process.pid] = " ".join(about[:3])
    return found


def wait_for_line(demo: subprocess.Popen[str], text: str) -> list[str]:
    """Read the demo's output up to the line with this text."""
    lines = []
    for line in demo.stdout:
        lines.append(line)
        if text in line:
            return lines
    raise AssertionError(f"the demo ended before it said {text!r}:\n{''.join(lines)}")


def test_once_gives_the_truth_and_says_so_in_its_last_line(start, tmp_path):
    demo = start("--once")
    output, _ = demo.communicate(timeout=2 * PATIENCE)
    assert demo.returncode == 0, output
    said = json.loads(output.splitlines()[-1])
    assert list(said) == ["dag", "state", "read", "landed", "quarantined", "sealed"]
    assert (said["dag"], said["state"], said["sealed"]) == ("kuaimai_trades", "success", True)
    assert said["read"] == said["landed"] + said["quarantined"] > 0
    assert of_the_demo(tmp_path) == {}


def test_ctrl_c_leaves_no_process_and_no_open_port(start, tmp_path):
    demo = start()
    lines = wait_for_line(demo, " landed ")
    (address,) = [line.split()[1] for line in lines if line.strip().startswith("UI ")]
    port = int(address.split(":")[2].split("/")[0])
    listening = [each.laddr for each in psutil.net_connections("tcp") if each.status == "LISTEN"]
    assert port in {each.port for each in listening}
    told = subprocess.run(
        [tmp_path / "kuaimai", "status", "trades"], capture_output=True, text=True, check=False
    )
    assert told.stdout.startswith("trades → kuaimai_target: "), told.stderr
    assert "upd_time" in told.stdout
    os.killpg(demo.pid, signal.SIGINT)
    output = demo.communicate(timeout=PATIENCE)[0]
    assert demo.returncode == 0, output
    assert "no process is left" in output
    assert of_the_demo(tmp_path) == {}
    listening = {each.laddr.port for each in psutil.net_connections("tcp") if each.status == "LISTEN"}
    assert port not in listening


def test_ctrl_c_while_it_starts_leaves_no_process(start, tmp_path):
    demo = start()
    wait_for_line(demo, "[2/4]")
    time.sleep(1)  # into the third step; nothing tells from the outside
    os.killpg(demo.pid, signal.SIGINT)
    assert demo.communicate(timeout=PATIENCE)[0]
    assert of_the_demo(tmp_path) == {}


def test_a_second_demo_in_the_same_folder_is_refused(start):
    wait_for_line(start(), "[1/4]")
    output = start("--once").communicate(timeout=PATIENCE)[0]
    assert "running in this folder already" in output
