"""Write docs/benchmarks.md, its Chinese twin and the plot from benchmarks/results/; nothing is typed by hand.

    python benchmarks/report.py

The words are in report.en.md and report.zh-CN.md, with a name in braces where figures belong.
"""

from __future__ import annotations

import json
import string
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench_memory import PROMISED_MIB, STAGES
from bench_ways import LIMITS, WAYS
from measure import HERE

DOCS = HERE.parent / "docs"
OURS = "kuaimai-4"
USUAL_ORDERS, USUAL_LATENCY = 20_000, 0.05
LATENCIES = (0.0, 0.05, 0.2)
LANGUAGES = {"en": "benchmarks.md", "zh-CN": "benchmarks.zh-CN.md"}

Run = dict[str, Any]

# What a table says: English, Chinese.
WORDS: dict[str, tuple[str, str]] = {
    "way": ("way", "方式"),
    "slower": ("this package is faster by", "本包快多少倍"),
    "rate": ("orders/s", "单/秒"),
    "cpu_ratio": ("it takes CPU, times ours", "CPU 为本包的倍数"),
    "cpu": ("CPU s", "CPU 秒"),
    "pg": ("PostgreSQL CPU s", "PostgreSQL CPU 秒"),
    "peak": ("peak MiB, all processes", "内存峰值 MiB（全部进程）"),
    "runs": ("runs", "次数"),
    "orders": ("orders", "订单数"),
    "stage": ("stage", "阶段"),
    "seconds": ("seconds", "秒"),
    "not run": ("not run", "未测"),
    "failed": ("failed", "失败"),
    "too slow": ("too slow", "过慢"),
    "latency": ("latency", "延迟"),
    "requests": ("requests", "请求数"),
    "store": ("store", "协调库"),
    "used": ("share of the budget", "预算使用率"),
    "most": ("most in one second", "一秒内最多"),
    "allowed": ("allowed", "允许"),
}
NAMES_CHINESE = {
    "kuaimai-2": "本包，2 个进程",
    "kuaimai-3": "本包，3 个进程",
    "kuaimai-4": "本包，4 个进程",
    "article": "种子文章的简单循环（requests.post、executemany）",
    "session": "简单循环，改用 Session 与多行 insert",
    "http-operator": "Airflow HttpOperator 加 pagination_function，executemany",
    "http-operator-multirow": "Airflow HttpOperator 加 pagination_function，多行 insert",
    "dlt-documented": "dlt，照文档写，全部字段",
    "dlt-documented-columns": "dlt，照文档写，字段与本包相同",
    "dlt-tuned": "dlt，调优（按天并行、worker、文件大小）",
    "dlt-expert": "dlt，专家写法（线程、手工摊平为 Arrow、csv 装载）",
    "dlt-expert-upsert": "dlt，专家写法，合并策略 upsert",
    "dlt-expert-adbc": "dlt，专家写法，经 ADBC 装载 Parquet",
    "download-1": "下载即丢弃，1 个连接",
    "download-8": "下载即丢弃，8 个连接",
    "download-32": "下载即丢弃，32 个连接",
}


class Results:
    """The runs in the files below results/."""

    def __init__(self, folder: Path) -> None:
        self.ways = self._read(folder / "ways.json")
        self.memory = self._read(folder / "memory.json")
        self.budget = self._read(folder / "budget.json")

    def _read(self, file: Path) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"runs": []}
        return found

    def run(self, way: str, orders: int, latency: float, limit: int = 0) -> Run | None:
        """Return what was measured of a way under these conditions, or None."""
        wanted = {"way": way, "orders": orders, "latency": latency, "rate_limit": limit}
        return next((one for one in self.ways["runs"] if wanted.items() <= one.items()), None)


class Report:
    """The tables in one language."""

    def __init__(self, results: Results, language: str) -> None:
        self.results = results
        self.chinese = language != "en"

    def word(self, name: str) -> str:
        """A word of a table's head."""
        return WORDS[name][self.chinese]

    def title(self, way: str) -> str:
        """A way's name in words."""
        return NAMES_CHINESE[way] if self.chinese else {**WAYS, **LIMITS}[way].title

    def speed(self, run: Run | None) -> str:
        """Orders a second, or why there are none."""
        if run is None:
            return self.word("not run")
        if run["ended"] != "ok":
            return self.word(run["ended"])
        return "**wrong**" if run["wrong"] else f"{run['orders_per_second']:,}"

    def ratios(self, orders: int, latency: float, limit: int = 0) -> str:
        """Every way beside ours, the slowest first."""
        ours = self.results.run(OURS, orders, latency, limit)
        if ours is None:
            return f"*{self.word('not run')}*"
        runs = [self.results.run(way, orders, latency, limit) for way in WAYS]
        found = [one for one in runs if one is not None]
        head = [self.word(one) for one in ("way", "slower", "cpu_ratio", "rate", "cpu", "pg", "peak", "runs")]
        rows = []
        for run in sorted(found, key=lambda one: (one["ended"] == "ok", one["orders_per_second"])):
            good = run["ended"] == "ok" and not run["wrong"]
            rows.append(
                [
                    self.title(run["way"]),
                    f"**{run['wall'] / ours['wall']:.1f}**" if good else "",
                    f"{_cpu(run) / _cpu(ours):.1f}" if good else "",
                    self.speed(run),
                    *(f"{run[name]:.1f}" if good else "" for name in ("cpu", "postgres_cpu")),
                    f"{run['peak_mib']:.0f}",
                    str(len(run.get("walls", [0]))),
                ]
            )
        return table(head, rows)

    def latencies(self) -> str:
        """Orders a second by latency, of ways and of the bare download."""
        names = [*WAYS, *(name for name in LIMITS if name.startswith("download"))]
        head = [self.word("way"), *(f"{latency * 1000:.0f} ms" for latency in LATENCIES)]
        rows = []
        for name in names:
            runs = [self.results.run(name, USUAL_ORDERS, latency) for latency in LATENCIES]
            if any(runs):
                rows.append([self.title(name), *map(self.speed_of(name), runs)])
        return table(head, rows)

    def speed_of(self, name: str) -> Any:
        """How a way's speed is told: a limit measures itself, without the start of a process."""
        if name in LIMITS:
            return lambda run: (
                self.word("not run") if run is None else f"{run['orders'] / run['output']['seconds']:,.0f}"
            )
        return self.speed

    def by_memory(self) -> str:
        """Peak of each task."""
        rows = [
            [f"{run['orders']:,}", *(f"{run['peak_mib'][stage]:.0f}" for stage in STAGES)]
            for run in sorted(self.results.memory["runs"], key=lambda one: int(one["orders"]))
        ]
        return table([self.word("orders"), *(f"{stage}, MiB" for stage in STAGES)], rows)

    def by_budget(self) -> str:
        """The shared budget by store."""
        head = [self.word(name) for name in ("store", "requests", "used", "most", "allowed")]
        rows = [
            [
                run["way"].partition("-")[2],
                str(run["requests"]),
                f"{run['used']:.1%}",
                str(run["most_in_one_second"]),
                str(run["allowed_in_one_second"]),
            ]
            for run in self.results.budget["runs"]
        ]
        return table(head, rows)

    def figures(self) -> Mapping[str, str]:
        """Everything that the text names in braces."""
        ways = self.results.ways
        machine = ways["machine"]
        loads = [run["load_before"] for run in ways["runs"]]
        return {
            "ratios": self.ratios(USUAL_ORDERS, USUAL_LATENCY),
            "ratios_200k": self.ratios(200_000, USUAL_LATENCY),
            "ratios_1m": self.ratios(1_000_000, USUAL_LATENCY),
            "ratios_limited": self.ratios(USUAL_ORDERS, USUAL_LATENCY, 15),
            "latencies": self.latencies(),
            "memory": self.by_memory(),
            "budget": self.by_budget(),
            "promised_mib": str(PROMISED_MIB),
            "cpu": machine["cpu"],
            "cores": str(machine["cores"]),
            "memory_gib": str(machine["memory_gib"]),
            "system": machine["system"],
            "python": machine["python"],
            "versions": ", ".join(f"{name} {number}" for name, number in sorted(ways["versions"].items())),
            "load_least": f"{min(loads):.1f}",
            "load_most": f"{max(loads):.1f}",
            "from": min(run["at"] for run in ways["runs"])[:10],
            **self.bound(),
            **self.times(),
        }

    def times(self) -> dict[str, str]:
        """How many times faster than others we are, with many orders and with few."""
        others = {"http": "http-operator", "documented": "dlt-documented", "expert": "dlt-expert"}
        return {
            f"times_{name}{few}": self._times(way, orders)
            for name, way in others.items()
            for few, orders in (("", 200_000), ("_few", USUAL_ORDERS))
        }

    def _times(self, way: str, orders: int) -> str:
        ours = self.results.run(OURS, orders, USUAL_LATENCY)
        other = self.results.run(way, orders, USUAL_LATENCY)
        return f"{other['wall'] / ours['wall']:.1f}" if ours and other else self.word("not run")

    def bound(self) -> dict[str, str]:
        """What parsing, exploding and PostgreSQL's own work allow on these cores, and our share of it."""
        parse = self.results.run("parse", USUAL_ORDERS, 0.0)
        write = self.results.run("write", USUAL_ORDERS, 0.0)
        names = ("parse_cpu", "explode_cpu", "write_cpu", "bound", "ours", "share", "share_by_cpu")
        ours = self.results.run(OURS, 200_000, USUAL_LATENCY) or self.results.run(
            OURS, USUAL_ORDERS, USUAL_LATENCY
        )
        if not (parse and write and ours):
            return dict.fromkeys(names, self.word("not run"))
        work = parse["output"]["parse"] + parse["output"]["explode"] + write["postgres_cpu"]
        bound = USUAL_ORDERS / work * self.results.ways["machine"]["cores"]
        values = (
            f"{parse['output']['parse']:.1f}",
            f"{parse['output']['explode']:.1f}",
            f"{write['postgres_cpu']:.1f}",
            f"{bound:,.0f}",
            f"{ours['orders_per_second']:,}",
            f"{ours['orders_per_second'] / bound:.0%}",
            f"{work / USUAL_ORDERS / (_cpu(ours) / ours['orders']):.0%}",
        )
        return dict(zip(names, values, strict=True))


def _cpu(run: Run) -> float:
    """CPU seconds of a way and of PostgreSQL for it."""
    return float(run["cpu"]) + float(run["postgres_cpu"])


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plot(results: Results, file: Path) -> None:
    """Draw orders a second and peak memory of each way."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    found = [results.run(way, USUAL_ORDERS, USUAL_LATENCY) for way in WAYS]
    runs = sorted(
        (one for one in found if one and one["ended"] == "ok" and not one["wrong"]),
        key=lambda one: int(one["orders_per_second"]),
    )
    names = [WAYS[run["way"]].title.replace(" (", "\n(").replace(", multi", ",\nmulti") for run in runs]
    names = [name.replace(", executemany", ",\nexecutemany") if "Http" in name else name for name in names]
    colours = ["#1f6f54" if run["way"].startswith("kuaimai") else "#a9b4bd" for run in runs]
    figure, (speed, memory) = plt.subplots(1, 2, figsize=(11, 0.62 * len(runs) + 1.2), sharey=True)
    for axis, values, title in (
        (speed, [run["orders_per_second"] for run in runs], "orders per second (more is better)"),
        (memory, [run["peak_mib"] for run in runs], "peak memory, MiB (less is better)"),
    ):
        bars = axis.barh(names, values, color=colours)
        axis.bar_label(bars, [f"{value:,.0f}" for value in values], padding=3, fontsize=9)
        axis.set_title(title, fontsize=11, loc="left")
        axis.spines[["top", "right", "bottom"]].set_visible(False)
        axis.set_xticks([])
        axis.margins(x=0.14)
        axis.tick_params(axis="y", length=0, labelsize=9)
    cores = results.ways["machine"]["cores"]
    figure.suptitle(
        f"{USUAL_ORDERS:,} orders into PostgreSQL, {USUAL_LATENCY * 1000:.0f} ms latency, {cores} cores",
        fontsize=12,
        x=0.01,
        ha="left",
    )
    figure.tight_layout()
    figure.savefig(file, dpi=110)


def main() -> int:
    """Write the two documents and the plot."""
    results = Results(HERE / "results")
    plot(results, DOCS / "benchmarks.png")
    for language, name in LANGUAGES.items():
        words = (HERE / f"report.{language}.md").read_text(encoding="utf-8")
        figures = Report(results, language).figures()
        (DOCS / name).write_text(string.Formatter().vformat(words, (), figures), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
