"""Write the pinned environments: ``python3 tools/lock.py [--upgrade]`` makes constraints/*.txt anew.

One file per environment, plain ``name==version`` lines, with a marker only where Python versions need
different ones. Each is a whole environment (``pip install -r``) and a constraint (``pip install -c``).
No line names a registry: where packages come from is the reader's own setting. Without ``--upgrade``
the pins stay wherever they still fit.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from environments import ENVIRONMENTS, ROOT, SUPPORTED, Environment, find_uv

PIN = re.compile(r"([a-z0-9][a-z0-9.-]*)==(\S+)")
Python = tuple[int, int]


def pythons_of(environment: Environment) -> list[Python]:
    """Return the Python versions that the environment promises to fit, oldest first."""
    first, last = SUPPORTED[0], environment.newest_python
    return [(3, minor) for minor in range(first[1], last[1] + 1)]


def resolve(environment: Environment, python: Python, *, upgrade: bool) -> dict[str, str]:
    """Return name → version of the whole environment for one Python version, on Linux."""
    version = ".".join(map(str, python))
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "pins.txt"
        if environment.constraint.exists() and not upgrade:
            output.write_text(environment.constraint.read_text())  # uv prefers the pins it finds there
        command = [
            *(find_uv(), "pip", "compile", "pyproject.toml", "--python-version", version),
            *("--python-platform", "linux", "--no-annotate", "--no-header", "--quiet"),
            *("--no-python-downloads", "--group", environment.group, "--output-file", str(output)),
        ]
        for extra in environment.extras:
            command += ["--extra", extra]
        subprocess.run(command, cwd=ROOT, check=True)
        pins = {}
        for line in output.read_text().splitlines():
            found = PIN.fullmatch(line)
            if not found:
                raise SystemExit(f"{environment.constraint.name}: not a plain pin: {line!r}")
            pins[found[1]] = found[2]
        return pins


def marker(run: list[Python], every: list[Python]) -> str:
    """Return the marker for a run of neighbouring Python versions, empty if they are all there are."""
    bounds = []
    if run[0] != every[0]:
        bounds.append(f"python_version >= '3.{run[0][1]}'")
    if run[-1] != every[-1]:
        bounds.append(f"python_version < '3.{run[-1][1] + 1}'")
    return f" ; {' and '.join(bounds)}" if bounds else ""


def merge(resolved: dict[Python, dict[str, str]]) -> list[str]:
    """Return the lines of one file from what each Python version needs."""
    every = sorted(resolved)
    lines = []
    for name in sorted({name for pins in resolved.values() for name in pins}):
        runs: list[tuple[str, list[Python]]] = []
        for python in every:
            version = resolved[python].get(name)
            if version is None:
                continue
            if runs and runs[-1][0] == version and runs[-1][1][-1][1] + 1 == python[1]:
                runs[-1][1].append(python)
            else:
                runs.append((version, [python]))
        lines += [f"{name}=={version}{marker(run, every)}" for version, run in runs]
    return lines


def main() -> int:
    """Lock every environment, or those named."""
    parser = argparse.ArgumentParser(description="Write the pinned environments in constraints/.")
    parser.add_argument("names", nargs="*", metavar="environment", help=", ".join(ENVIRONMENTS))
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that fit")
    options = parser.parse_args()
    for name in options.names or ENVIRONMENTS:
        environment = ENVIRONMENTS[name]
        pythons = pythons_of(environment)
        lines = merge({each: resolve(environment, each, upgrade=options.upgrade) for each in pythons})
        environment.constraint.write_text("\n".join(lines) + "\n")
        print(f"{environment.constraint.relative_to(ROOT)}: {len(lines)} lines")
    return 0


if __name__ == "__main__":
    sys.exit(main())
