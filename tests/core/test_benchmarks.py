"""`make bench` goes on after a failure, can be resumed, and its tables say what the results say."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """Import a module of the benchmarks, which are scripts and no package."""
    monkeypatch.syspath_prepend(str(FOLDER))
    known = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - known:
        if str(FOLDER) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def bench(benchmark, tmp_path, monkeypatch):
    """Return a function that runs `make bench` over steps of our own and gives its exit code."""
    module, step = benchmark("bench"), benchmark("matrix").Step
    monkeypatch.setattr(module, "DONE", tmp_path / "done.json")
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    monkeypatch.setattr(module, "python", lambda _environment: sys.executable)
    monkeypatch.setattr(module, "report", lambda: "")

    def run(*arguments: str, **scripts: str) -> int:
        steps = []
        for name, text in scripts.items():
            (tmp_path / f"{name}.py").write_text(text)
            steps.append(step(name, "bench", (str(tmp_path / f"{name}.py"),), 1.0))
        monkeypatch.setattr(module, "selection", lambda *, whole: steps)
        monkeypatch.setattr(sys, "argv", ["bench.py", *arguments])
        return module.main()

    return run


def mark(path: Path) -> str:
    return f"open({str(path)!r}, 'a').write('x')"


def test_step_that_fails_is_told_and_the_others_still_run(bench, tmp_path, capfd):
    assert bench(first="raise SystemExit(3)", second=mark(tmp_path / "ran")) == 1
    assert (tmp_path / "ran").read_text() == "x"
    told = capfd.readouterr().out
    assert "2 steps, about" in told
    assert "FAILED first: exit code 3" in told
    assert "--resume" in told


def test_resuming_runs_only_what_did_not_get_done(bench, tmp_path):
    second = mark(tmp_path / "ran")
    bench(first="raise SystemExit(3)", second=second)
    assert bench("--resume", first=mark(tmp_path / "mended"), second=second) == 0
    assert (tmp_path / "mended").read_text() == "x"
    assert (tmp_path / "ran").read_text() == "x"
    assert bench(first=second, second=second) == 0
    assert (tmp_path / "ran").read_text() == "xxx"


def test_step_that_does_not_end_is_ended(bench, benchmark, monkeypatch, capfd):
    monkeypatch.setattr(benchmark("bench"), "patience", lambda _step: 0.0)
    assert bench(first="import signal; signal.pause()") == 1
    assert "FAILED first: ended after" in capfd.readouterr().out


def test_steps_can_be_named_and_a_wrong_name_is_refused(bench, tmp_path, capfd):
    assert bench("--only", "second", first="raise SystemExit(3)", second=mark(tmp_path / "ran")) == 0
    with pytest.raises(SystemExit):
        bench("--only", "third", first="", second="")
    assert "no step is named third; there are first, second" in capfd.readouterr().err


@pytest.mark.parametrize("whole", [False, True])
def test_selection_covers_every_way_every_limit_and_every_promise(benchmark, whole):
    matrix, ways = benchmark("matrix"), benchmark("bench_ways")
    steps = matrix.selection(whole=whole)
    named = {argument for step in steps for argument in step.command}
    assert set(ways.WAYS) <= named
    assert {"parse", "write", "bare-work", "download-32"} <= named
    scripts = {step.command[0] for step in steps}
    assert scripts == {path.name for path in FOLDER.glob("bench_*.py")}
    assert len({step.name for step in steps}) == len(steps)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, "ok"),
        ({"tries": 2}, "again"),
        ({"ended": "failed"}, "later"),
        ({"missing": 7}, "silent"),
        ({"missing": 7, "ended": "failed"}, "told"),
        ({"missing": 7, "next_ended": "failed"}, "told"),
        ({"missing": 7, "sealed": False}, "told"),
    ],
)
def test_what_became_of_a_way_under_a_fault(benchmark, facts, expected):
    fine = {"missing": 0, "runs": 1, "tries": 1, "ended": "ok", "next_ended": "ok", "sealed": True}
    assert benchmark("bench_faults").outcome({**fine, **facts}) == expected


def run(way: str, orders: int, wall: float, latency: float = 0.05, **more) -> dict:
    figures = {"cpu": 1.0, "postgres_cpu": 1.0, "ended": "ok", "wrong": "", "rate_limit": 0, "output": None}
    return {**figures, "way": way, "orders": orders, "latency": latency, "wall": wall, **more}


def results(benchmark, folder: Path, runs: list[dict]):
    text = json.dumps({"runs": runs, "machine": {"cores": 2}})
    (folder / "ways.json").write_text(text)
    return benchmark("findings").Results(folder)


def limits(*, together: float) -> list[dict]:
    work = {"seconds": together}
    return [
        run("parse", 20_000, 9.0, 0.0, output={"parse": 1.0, "explode": 2.0}),
        run("write", 20_000, 9.0, 0.0, postgres_cpu=1.0),
        run("bare-work", 20_000, 9.0, 0.0, output=work),
    ]


def test_goal_that_the_bare_work_does_not_allow_says_so(benchmark, tmp_path):
    measured = [run("kuaimai-4", 20_000, 5.0), run("http-operator", 20_000, 20.0)]
    found = results(benchmark, tmp_path, [*measured, *limits(together=4.0)])
    goals = {goal.name: goal for goal in benchmark("findings").goals(found)}
    assert (goals["http"].reached, goals["http"].met, goals["http"].wanted) == ("4.0", False, 20_000.0)
    assert (goals["bound"].reached, goals["bound"].met, goals["bound"].wanted) == ("40%", False, 0.0)
    assert goals["expert"].reached == ""


def test_goal_that_was_missed_but_is_possible_gives_no_excuse(benchmark, tmp_path):
    measured = [run("kuaimai-4", 20_000, 5.0), run("http-operator", 20_000, 60.0)]
    found = results(benchmark, tmp_path, [*measured, *limits(together=2.0)])
    goals = {goal.name: goal for goal in benchmark("findings").goals(found)}
    assert (goals["http"].reached, goals["http"].met, goals["http"].wanted) == ("12.0", False, 0.0)


def test_run_that_wrote_wrong_rows_is_no_figure(benchmark, tmp_path):
    measured = [run("kuaimai-4", 20_000, 5.0), run("dlt-expert", 20_000, 20.0, wrong="19 orders")]
    found = results(benchmark, tmp_path, measured)
    assert benchmark("findings").times(found, "expert", 20_000) is None


def test_report_waits_for_the_first_way(benchmark, tmp_path, monkeypatch, capsys):
    report = benchmark("report")
    monkeypatch.setattr(report, "HERE", tmp_path)
    assert report.main() == 0
    assert "no way was measured yet" in capsys.readouterr().out


def test_number_of_processes_that_is_fastest_is_compared(benchmark, tmp_path):
    measured = [
        run("kuaimai-4", 20_000, 6.0),
        run("kuaimai-3", 20_000, 5.0),
        run("kuaimai-2", 20_000, 4.0, wrong="19 orders"),
        run("http-operator", 20_000, 60.0),
    ]
    found = results(benchmark, tmp_path, measured)
    assert benchmark("findings").times(found, "http", 20_000) == 12.0


def test_half_of_the_limit_that_the_cores_do_not_reach_together_says_so(benchmark, tmp_path):
    measured = [run("kuaimai-4", 20_000, 5.0), *limits(together=4.5)]
    goals = {goal.name: goal for goal in benchmark("findings").goals(results(benchmark, tmp_path, measured))}
    assert (goals["bound"].met, goals["bound"].wanted) == (False, 5_000.0)
