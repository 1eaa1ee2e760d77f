"""The rules that keep the shape of the repository, each one checked."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "plugins" / "kuaimai"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)

# The way of a record, source first. A room imports from its own and from rooms before it.
ROOMS = ["errors", "state", "gateway", "extract", "transform", "load", "pipeline", "airflow"]
# What stands beside that way, and what it may import. `kuaimai plan` asks Airflow for its Connections, so the
# command reaches into its room, inside of that verb: that it imports without Airflow is tested below.
BESIDE = {"sandbox": {"errors"}, "cli": {*ROOMS, "sandbox"}, "__init__": set()}


def tracked_files() -> list[Path]:
    """Return the text files of the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout
    if not listed:
        pytest.skip("not a git working tree")
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def read(path: Path) -> str:
    """Return a text file, whatever the locale of the machine."""
    return path.read_text(encoding="utf-8", errors="replace")


def dotted(path: Path) -> str:
    """Return the name that a module is imported by."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(path: Path) -> str:
    """Return the room that a module is in: the folder or the module directly below the package."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@functools.cache
def imports(path: Path) -> list[tuple[str, int]]:
    """Return the absolute names that a module imports, and how many dots stand before each."""
    found = []
    for node in ast.walk(ast.parse(read(path))):
        if isinstance(node, ast.Import):
            found += [(alias.name, 0) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [(f"{node.module}.{alias.name}", node.level) for alias in node.names]
    return found


def test_no_module_is_named_like_a_standard_library_one():
    # Airflow's plugin scan puts unhidden files into sys.modules under their bare names.
    taken = set(sys.stdlib_module_names) | {"utils", "util", "helpers", "common", "misc"}
    names = {path: {part.removesuffix(".py") for part in path.relative_to(PACKAGE).parts} for path in MODULES}
    assert {dotted(path): used & taken for path, used in names.items() if used & taken} == {}


def test_imports_are_absolute():
    assert [(dotted(path), name) for path in MODULES for name, dots in imports(path) if dots] == []


def test_imports_point_one_way():
    against = []
    for path in MODULES:
        mine = room(path)
        ours = {name.split(".")[1] for name, _ in imports(path) if name.startswith("kuaimai.")}
        allowed = BESIDE[mine] if mine in BESIDE else set(ROOMS[: ROOMS.index(mine)])
        against += [(dotted(path), other) for other in ours - allowed - {mine, "__version__"}]
    assert against == []


def test_airflow_is_imported_only_where_it_belongs():
    allowed = (PACKAGE / "airflow", ROOT / "dags", ROOT / "tests", ROOT / "demo", ROOT / "benchmarks")
    importing = {
        path
        for path in tracked_files()
        if path.suffix == ".py"
        and "airflow" in read(path)
        and any(name.split(".")[0] == "airflow" for name, _ in imports(path))
    }
    strays = {path for path in importing if not any(folder in path.parents for folder in allowed)}
    assert strays - {ROOT / "plugins" / "kuaimai_plugin.py"} == set()


def test_the_core_imports_where_airflow_is_not_installed():
    core = [dotted(path) for path in MODULES if room(path) != "airflow"]
    program = f"""
import importlib, sys
class Refusal:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "airflow":
            raise ImportError(name + " is not installed here")
sys.meta_path.insert(0, Refusal())
for name in {core!r}:
    importlib.import_module(name)
"""
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_package_root_imports_nothing():
    # Airflow imports it while it discovers providers.
    assert imports(PACKAGE / "__init__.py") == []


def test_the_ignore_file_hides_the_package_under_both_syntaxes():
    lines = read(PACKAGE / ".airflowignore").splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == ["[a-z_]*"]


def test_no_dags_folder_shares_the_name_of_the_package():
    assert not (ROOT / "dags" / "kuaimai").exists()


def test_tests_are_not_a_package():
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_names_that_users_catch_stay():
    # Taking one away breaks users: add, then deprecate.
    from kuaimai import errors

    public = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert public >= {
        "ConfigError",
        "DataError",
        "KuaimaiError",
        "Rejected",
        "SessionError",
        "Throttled",
        "TooLarge",
        "TooSlow",
        "Transient",
    }


def test_the_version_is_the_head_of_the_changelog():
    from kuaimai import __version__

    head = re.search(r"^## (\S+)", read(ROOT / "CHANGELOG.md"), re.MULTILINE)
    assert head is not None
    assert head[1] == __version__


def skeleton(text: str) -> tuple[list[str], list[list[str]]]:
    """Return the levels of a page's headings, and the commands of its code blocks without comments."""
    # A drawing has words in it, and those are translated.
    text = re.sub(r"^```mermaid.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    commands = [
        [line.split("  #")[0].rstrip() for line in block.splitlines() if not line.startswith("#")]
        for block in blocks
    ]
    return re.findall(r"^(#+) ", prose, re.MULTILINE), commands


def test_both_readmes_have_the_same_headings_and_commands():
    english = skeleton(read(ROOT / "README.md"))
    chinese = skeleton(read(ROOT / "README.zh-CN.md"))
    assert english == chinese


def test_commands_of_the_readme_exist():
    targets = set(re.findall(r"^([a-z-]+):", read(ROOT / "Makefile"), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", read(ROOT / "README.md"), re.MULTILINE))
    assert named <= targets
    assert {"demo", "demo-once", "test", "lint", "bench", "help"} <= targets


@pytest.mark.parametrize("path", sorted((ROOT / "constraints").glob("*.txt")), ids=lambda path: path.name)
def test_constraints_are_plain_pins(path):
    pin = re.compile(r"[a-z0-9][a-z0-9.-]*==[a-z0-9.+!]+( ; python_version [<>=]+ '3\.\d+'( and .*)?)?")
    lines = read(path).splitlines()
    assert lines
    assert [line for line in lines if not pin.fullmatch(line)] == []


def test_files_name_no_registry_and_no_machine():
    # A registry is the reader's own setting, and a path of the machine of the author helps nobody.
    registry = r"https?://[^\s/]*(?:pypi|pythonhosted|mirrors?\.)"
    machine = r"(?<![\w.$}{])/(?:root|work|home/[a-z]+|opt/(?:wheels|pypi))/"
    forbidden = re.compile(f"{registry}|{machine}")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in tracked_files()
        if path != Path(__file__).resolve()
        for number, line in enumerate(read(path).splitlines(), 1)
        if forbidden.search(line)
    ]
    assert found == []


def test_only_stages_that_make_columns_pay_for_pandas():
    """Plan, extract and seal are tasks of their own, and run every five minutes."""
    ask = "import sys, kuaimai.pipeline.stages, kuaimai.load.targets; print('pandas' in sys.modules)"
    command = [sys.executable, "-c", ask]
    done = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
