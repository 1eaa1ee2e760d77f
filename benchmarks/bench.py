"""All benchmarks by one command: says what it will run and how long, ends by itself, can be gone on with.

    make bench                              every way and every claim once
    make bench BENCH=--whole                the whole matrix: latencies, numbers of orders, limits, repeats
    make bench BENCH=--resume               what the last call did not get done
    make bench BENCH="--only faults budget" some steps
    make bench BENCH=--list                 what it would run, and how long that takes

A step that fails, or takes four times as long as thought, is told at the end and does not keep the others
from running. Results are kept in benchmarks/results/ as they come; docs/benchmarks*.md and the plot are
written after every step, so that they are right whenever the command is ended.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from corpus import FOLDER, ROOT
from matrix import SCRIPTS, Step, selection

DONE = FOLDER / "done.json"
_LEAST_PATIENCE_SECONDS = 300.0
_PATIENCE = 4.0
_GOODBYE_SECONDS = 60.0


def python(environment: str) -> str:
    """The interpreter of one of the environments that tools/environments.py makes."""
    return str(ROOT / f".venv-{environment}" / "bin" / "python")


def patience(step: Step) -> float:
    """Seconds after which a step is ended."""
    return max(_LEAST_PATIENCE_SECONDS, _PATIENCE * step.seconds)


def run(step: Step) -> str:
    """Run one step; return why it failed, or nothing."""
    process = subprocess.Popen(
        [python(step.environment), "-W", "ignore", str(SCRIPTS / step.command[0]), *step.command[1:]],
        cwd=ROOT,
        start_new_session=True,
    )
    try:
        status = process.wait(patience(step))
    except subprocess.TimeoutExpired:
        _end(process)
        return f"ended after {patience(step) / 60:.0f} minutes"
    except KeyboardInterrupt:
        _end(process)
        raise
    return f"exit code {status}; see its output above" if status else ""


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a step as Ctrl-C would, so that it stops the databases and servers that it has started."""
    os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(_GOODBYE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def report() -> str:
    """Write the documents and the plot; return why that failed, or nothing."""
    done = subprocess.run([python("bench"), str(SCRIPTS / "report.py")], cwd=ROOT, check=False)
    return f"exit code {done.returncode}" if done.returncode else ""


def overview(steps: Sequence[Step]) -> str:
    """Say what will run, and how long that takes."""
    lines = [f"{step.name:32}{step.seconds / 60:6.1f} min  {' '.join(step.command)}" for step in steps]
    whole = sum(step.seconds for step in steps) / 60
    return "\n".join([*lines, f"{len(steps)} steps, about {whole:.0f} minutes on two quiet cores"])


def main() -> int:
    """Run the steps that the command line selects; 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--whole", action="store_true", help="the whole matrix; hours")
    parser.add_argument("--resume", action="store_true", help="leave out what the last call got done")
    parser.add_argument("--only", nargs="+", metavar="step", help="these steps; see --list")
    parser.add_argument("--list", action="store_true", help="say what would run, and end")
    options = parser.parse_args()
    steps = selection(whole=options.whole)
    known = [step.name for step in steps]
    if unknown := sorted(set(options.only or ()) - set(known)):
        parser.error(f"no step is named {', '.join(unknown)}; there are {', '.join(known)}")
    done: list[str] = json.loads(DONE.read_text()) if options.resume and DONE.exists() else []
    steps = [step for step in steps if step.name in (options.only or known) and step.name not in done]
    print(overview(steps), flush=True)
    if options.list:
        return 0
    FOLDER.mkdir(exist_ok=True)
    # In the background of a shell Ctrl-C is ignored, and the steps would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    failed = {}
    for number, step in enumerate(steps, start=1):
        print(f"\n[{number}/{len(steps)}] {step.name}, about {step.seconds / 60:.0f} min", flush=True)
        started = time.monotonic()
        if why := run(step):
            failed[step.name] = why
        else:
            done.append(step.name)
            DONE.write_text(json.dumps(done))
        print(f"{step.name}: {why or 'done'}, {(time.monotonic() - started) / 60:.1f} min", flush=True)
        if why := report():
            failed["report"] = why
    for name, why in failed.items():
        print(f"FAILED {name}: {why}")
    if failed:
        print("to try these again: make bench BENCH=--resume (with --whole, if that was given)")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
