"""Write docs/benchmarks.md, its Chinese twin and the plot from benchmarks/results/; nothing is typed by hand.

    python benchmarks/report.py

The words are in report.en.md and report.zh-CN.md, with a name in braces where figures belong.
"""

from __future__ import annotations

import string
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from bench_faults import FAULTS
from bench_memory import PROMISED_MIB, STAGES
from bench_ways import LIMITS, WAYS
from findings import (
    MANY_ORDERS,
    USUAL_LATENCY,
    USUAL_ORDERS,
    Goal,
    Results,
    Run,
    bound,
    cpu,
    goals,
    ours_beside,
    times,
)
from measure import HERE
from words import CHINESE, OUTCOMES, WAYS_UNDER_FAULTS, WORDS
from words import FAULTS as FAULTS_IN_WORDS

DOCS = HERE.parent / "docs"
LATENCIES = (0.0, 0.05, 0.2)
LANGUAGES = {"en": "benchmarks.md", "zh-CN": "benchmarks.zh-CN.md"}


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
        return CHINESE[way] if self.chinese else {**WAYS, **LIMITS}[way].title

    def speed(self, run: Run | None) -> str:
        """Orders a second, or why there are none."""
        if run is None:
            return self.word("not run")
        if run["ended"] != "ok":
            return self.word(run["ended"])
        return f"**{self.word('wrong')}**" if run["wrong"] else f"{run['orders_per_second']:,}"

    def ratios(self, orders: int, latency: float, limit: int = 0) -> str:
        """Every way beside ours, the slowest first."""
        ours = self.results.ours(orders, latency, limit)
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
                    f"{cpu(run) / cpu(ours):.1f}" if good else "",
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

    def speed_of(self, name: str) -> Callable[[Run | None], str]:
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

    def by_fault(self) -> str:
        """What became of each way under each fault."""
        found = {(run["fault"], run["way"]): run for run in self.results.faults["runs"]}
        ways = [way for way in WAYS_UNDER_FAULTS if any((fault, way) in found for fault in FAULTS)]
        head = [self.word("fault"), *(WAYS_UNDER_FAULTS[way][self.chinese] for way in ways)]
        rows = [
            [FAULTS_IN_WORDS[fault][self.chinese], *(self.became(found.get((fault, way))) for way in ways)]
            for fault in FAULTS
        ]
        return table(head, rows) if ways else f"*{self.word('not run')}*"

    def became(self, run: Run | None) -> str:
        """What became of one way under one fault."""
        if run is None:
            return self.word("not run")
        kind = "held" if run["outcome"] == "ok" and run["quarantined"] else run["outcome"]
        words = OUTCOMES[kind][self.chinese]
        return words.format(missing=f"{run['missing']:,}", held=run["quarantined"])

    def silent(self) -> dict[str, str]:
        """How often rows were missing without a word."""
        runs = [run for run in self.results.faults["runs"] if run["fault"] != "none"]
        ours = [run for run in runs if run["way"] == "kuaimai"]
        others = [run for run in runs if run["way"] != "kuaimai"]
        return {
            "fault_orders": f"{max((run['orders'] for run in runs), default=0):,}",
            "silent_ours": str(sum(run["outcome"] == "silent" for run in ours)),
            "trials_ours": str(len(ours)),
            "silent_others": str(sum(run["outcome"] == "silent" for run in others)),
            "trials_others": str(len(others)),
        }

    def by_goal(self) -> str:
        """What was promised, what was reached, and whether that is enough."""
        head = [self.word(name) for name in ("goal", "reached", "verdict")]
        return table(head, map(self.goal, goals(self.results)))

    def goal(self, goal: Goal) -> list[str]:
        """One goal as a row."""
        name = self.word(f"goal {goal.name}").format(promised=PROMISED_MIB)
        if not goal.reached:
            return [name, self.word("not run"), ""]
        reached = f"**{goal.reached}**"
        if goal.orders:
            reached = self.word("at").format(most=goal.reached, orders=f"{goal.orders:,}")
        verdict = self.word("yes" if goal.met else "no")
        limit = bound(self.results)
        if goal.wanted and limit:
            verdict = self.word("beyond").format(wanted=f"{goal.wanted:,.0f}", bound=f"{limit.possible:,.0f}")
        return [name, reached, verdict]

    def headroom(self) -> str:
        """What the gateway can serve, beside what the fastest way took from it."""
        head = [self.word(one) for one in ("latency", "connections", "fastest", "headroom", "server_cpu")]
        rows = []
        for latency in LATENCIES:
            served = self.results.run("download-32", USUAL_ORDERS, latency)
            taken = [
                run
                for way in WAYS
                for orders in (MANY_ORDERS, USUAL_ORDERS)
                if (run := self.results.good(way, orders, latency))
            ]
            if not served or not taken:
                continue
            fastest = max(taken, key=lambda run: run["orders"] / run["wall"])
            rate, able = (
                fastest["orders"] / fastest["wall"],
                served["orders"] / served["output"]["seconds"],
            )
            rows.append(
                [
                    f"{latency * 1000:.0f} ms",
                    f"{able:,.0f}",
                    f"{rate:,.0f}",
                    f"{able / rate:.0f}",
                    f"{fastest['server_cpu'] / fastest['wall']:.1%}",
                ]
            )
        return table(head, rows)

    def figures(self) -> Mapping[str, str]:
        """Everything that the text names in braces."""
        ways = self.results.ways
        machine = ways["machine"]
        loads = [run["load_before"] for run in ways["runs"]]
        return {
            "faults": self.by_fault(),
            **self.silent(),
            "goals": self.by_goal(),
            "ratios": self.ratios(USUAL_ORDERS, USUAL_LATENCY),
            "ratios_200k": self.ratios(MANY_ORDERS, USUAL_LATENCY),
            "ratios_1m": self.ratios(1_000_000, USUAL_LATENCY),
            "ratios_limited": self.ratios(USUAL_ORDERS, USUAL_LATENCY, 15),
            "latencies": self.latencies(),
            "headroom": self.headroom(),
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
            **self.limit(),
            **self.times_with_few(),
        }

    def beside(self, other: Report) -> dict[str, str]:
        """What the text says of the same ways on another machine."""
        limit = other.limit()
        machine = other.results.ways["machine"]
        return {
            "other_cpu": machine["cpu"],
            "other_memory_gib": str(machine["memory_gib"]),
            "other_system": machine["system"],
            "other_goals": other.by_goal(),
            "other_ratios": other.ratios(MANY_ORDERS, USUAL_LATENCY),
            "other_from": min(run["at"] for run in other.results.ways["runs"])[:10],
            **{f"other_{name}": limit[name] for name in ("bound", "together", "share", "share_together")},
        }

    def times_with_few(self) -> dict[str, str]:
        """How many times faster than others we are with few orders."""
        found = {name: times(self.results, name, USUAL_ORDERS) for name in ("http", "documented", "expert")}
        return {
            f"times_{name}": self.word("not run") if one is None else f"{one:.1f}"
            for name, one in found.items()
        }

    def limit(self) -> dict[str, str]:
        """What the bare work allows on these cores, and our share of it."""
        names = ("bound_orders", "parse_cpu", "explode_cpu", "write_cpu", "bound", "together", "ours_orders",
                 "ours", "share", "share_together", "share_by_cpu")  # fmt: skip
        limit = bound(self.results)
        ours = ours_beside(limit, self.results)
        if not limit or not ours:
            return dict.fromkeys(names, self.word("not run"))
        rate = ours["orders"] / ours["wall"]
        none = self.word("not run")
        values = (
            f"{limit.orders:,}",
            f"{limit.parse:.1f}",
            f"{limit.explode:.1f}",
            f"{limit.write:.1f}",
            f"{limit.by_cpu:,.0f}",
            f"{limit.together:,.0f}" if limit.together else none,
            f"{limit.orders:,}",
            f"{rate:,.0f}",
            f"{rate / limit.by_cpu:.0%}",
            f"{rate / limit.together:.0%}" if limit.together else none,
            f"{limit.work / (cpu(ours) / ours['orders']):.0%}",
        )
        return dict(zip(names, values, strict=True))


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
    if not results.ways["runs"]:
        print("no way was measured yet: the documents stay as they are")
        return 0
    other = Results(HERE / "results" / "other")
    plot(results, DOCS / "benchmarks.png")
    for language, name in LANGUAGES.items():
        words = (HERE / f"report.{language}.md").read_text(encoding="utf-8")
        report = Report(results, language)
        figures = {**report.figures(), **report.beside(Report(other, language))}
        (DOCS / name).write_text(string.Formatter().vformat(words, (), figures), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
