"""Peak memory of every task while the orders grow: it must not grow with them, and stay under 350 MiB.

Each stage of each slice runs in a process of its own, one after the other, as tasks do; the figure is that
process's maximum resident set. Slices are days, so the largest day of 1,000,000 orders has some 215,000.

    make bench            (or: python benchmarks/bench_memory.py 20000 200000 1000000)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bench_ways import columns, keep, machine
from corpus import END, PAGE_SIZE, START, corpus
from measure import HERE, Postgres, gateway, own_peak

RESULTS = HERE / "results" / "memory.json"
PROMISED_MIB = 350
STAGES = ("plan", "extract", "transform", "load")


def one_stage(stage: str, folder: Path) -> None:
    """Run one stage of one slice in this process and print its figures as JSON."""
    sys.path.insert(0, str(HERE / "ways"))
    from kuaimai_stages import FACTS, base_only, client, driver, planned
    from requests import Session

    from kuaimai.extract.staging import Staging
    from kuaimai.extract.windows import Slice
    from kuaimai.load.targets import open_target
    from kuaimai.pipeline import stages
    from kuaimai.pipeline.manifests import Extracted, Transformed, from_manifest, to_manifest

    pipeline, staging = base_only(), Staging(folder / "staging")
    manifest = folder / "manifest.json"
    started = time.monotonic()
    if stage == "plan":
        result: Any = [to_manifest(piece) for piece in planned(pipeline)]
    elif stage == "extract":
        piece = from_manifest(json.loads(manifest.read_text()), Slice)
        with Session() as transport:
            result = to_manifest(stages.extract(pipeline, piece, client(transport), staging))
    elif stage == "transform":
        extracted = from_manifest(json.loads(manifest.read_text()), Extracted)
        result = to_manifest(stages.transform(pipeline, extracted, staging))
    else:
        transformed = from_manifest(json.loads(manifest.read_text()), Transformed)
        target = open_target(driver(FACTS["target"]))
        result = to_manifest(stages.load(pipeline, transformed, staging, target))
        target.close()
    manifest.write_text(json.dumps(result))
    peak = own_peak() / 2**20
    print(json.dumps({"peak_mib": round(peak, 1), "seconds": round(time.monotonic() - started, 2)}))


def measure(orders: int, postgres: Postgres) -> dict[str, Any]:
    """Return the peak of each stage, over the largest slice."""
    corpus(orders)
    peaks: dict[str, float] = {}
    seconds: dict[str, float] = {}
    with gateway(orders) as served, tempfile.TemporaryDirectory(prefix="kuaimai-bench-") as temporary:
        folder = Path(temporary)
        facts = {
            "url": served["url"],
            "target": postgres.fresh("bench"),
            "interval": [START.isoformat(), END.isoformat()],
            "page_size": PAGE_SIZE,
            "rate_limit": 0,
            "tables": columns(),
        }

        def run(stage: str) -> None:
            done = subprocess.run(
                [sys.executable, "-W", "ignore", __file__, json.dumps(facts), "--stage", stage, str(folder)],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
                env={**os.environ},
            )
            figures = json.loads(done.stdout)
            peaks[stage] = max(peaks.get(stage, 0.0), figures["peak_mib"])
            seconds[stage] = seconds.get(stage, 0.0) + figures["seconds"]

        run("plan")
        pieces = json.loads((folder / "manifest.json").read_text())
        # The last day is the largest: the records' last changes gather at the end.
        (folder / "manifest.json").write_text(json.dumps(pieces[-1]))
        for stage in STAGES[1:]:
            run(stage)
        postgres.drop("bench")
    return {
        "way": "memory",
        "orders": orders,
        "latency": 0.0,
        "rate_limit": 0,
        "peak_mib": peaks,
        "seconds": {stage: round(value, 1) for stage, value in seconds.items()},
        "at": datetime.now(tz=timezone.utc).isoformat(timespec="seconds"),
    }


def main(sizes: list[int]) -> int:
    """Measure every stage at every size and print a table."""
    high = False
    with tempfile.TemporaryDirectory(prefix="kuaimai-bench-") as folder:
        postgres = Postgres(Path(folder) / "pg")
        print("| orders | " + " | ".join(f"{stage}, MiB" for stage in STAGES) + " |")
        print("|---|" + "---|" * len(STAGES), flush=True)
        try:
            for size in sizes:
                result = measure(size, postgres)
                keep(result, {"machine": machine()}, RESULTS)
                peaks = result["peak_mib"]
                print(f"| {size:,} | " + " | ".join(f"{peaks[s]:.0f}" for s in STAGES) + " |", flush=True)
                high = high or max(peaks.values()) > PROMISED_MIB
        finally:
            postgres.close()
    return 1 if high else 0


if __name__ == "__main__":
    if "--stage" in sys.argv:
        one_stage(sys.argv[3], Path(sys.argv[4]))
    else:
        sys.exit(main([int(size) for size in sys.argv[1:]] or [20_000, 200_000]))
