"""Take the pictures of the documents anew, from a running demo: ``python tools/pictures.py``.

Needs what ``make demo`` needs, besides ``pip install playwright``, a font with Chinese, and a Chromium (``apt
install chromium``, or its path in ``CHROMIUM``). Takes some minutes: the demo has to have a past before there
is anything to see.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from environments import ENVIRONMENTS, ROOT
from playwright.sync_api import APIRequestContext, Page, sync_playwright

PICTURES = ROOT / "docs" / "pictures"
AIRFLOW = ENVIRONMENTS["airflow3"].python
RUNS = 2
"""Runs of `kuaimai_trades` before the pictures are taken."""


@contextmanager
def demo() -> Iterator[tuple[str, str, str]]:
    """Run the demo until it has read a few times; give the UI's address, its user and its password."""
    running = subprocess.Popen(
        [str(AIRFLOW), "demo/run.py"], cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    told, runs = "", 0
    try:
        for line in running.stdout or ():
            print(line, end="", flush=True)
            told += line
            runs += "erp.trade.outstock.simple.query" in line
            if runs == RUNS:
                break
        address = re.search(r"UI +(http://[^/]+)", told)
        login = re.search(r"login +(\S+) / (\S+)", told)
        if address is None or login is None:
            raise SystemExit("the demo did not come up; see above")
        yield address[1], login[1], login[2]
    finally:
        running.send_signal(signal.SIGINT)
        running.wait(60)


def finished(api: APIRequestContext, dag: str) -> str:
    """Trigger a DAG and return its run's id when it is done."""
    api.patch(f"/api/v2/dags/{dag}", data={"is_paused": False})
    triggered: dict[str, Any] = api.post(f"/api/v2/dags/{dag}/dagRuns", data={"logical_date": None}).json()
    run = str(triggered["dag_run_id"])
    while api.get(f"/api/v2/dags/{dag}/dagRuns/{run}").json()["state"] in ("queued", "running"):
        time.sleep(1)
    return run


def latest(api: APIRequestContext, dag: str) -> str:
    """Return the id of the newest run of a DAG."""
    runs = api.get(f"/api/v2/dags/{dag}/dagRuns", params={"order_by": "-run_after", "limit": 1}).json()
    return str(runs["dag_runs"][0]["dag_run_id"])


def take(page: Page, address: str, name: str, *, shows: str) -> None:
    """Photograph a page when it shows some text."""
    page.goto(address)
    page.get_by_text(shows).first.wait_for(timeout=60_000)
    page.wait_for_timeout(2_000)  # charts and logs come after their frame
    page.screenshot(path=PICTURES / name)
    print(PICTURES / name, flush=True)


def main() -> int:
    """Take every picture."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        raise SystemExit("there is no Chromium: apt install chromium, or give its path in CHROMIUM")
    PICTURES.mkdir(exist_ok=True)
    with demo() as (address, user, password), sync_playwright() as playwright:
        token = playwright.request.new_context(base_url=address).post(
            "/auth/token", data={"username": user, "password": password}
        )
        bearer = {"Authorization": f"Bearer {token.json()['access_token']}"}
        api = playwright.request.new_context(base_url=address, extra_http_headers=bearer)
        # As root, which nobody else is, Chromium needs to be told.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1480, "height": 640})
        page.goto(address)
        page.locator("input[name=username]").fill(user)
        page.locator("input[name=password]").fill(password)
        page.keyboard.press("Enter")
        page.get_by_text("Stats").first.wait_for(timeout=60_000)
        trades = latest(api, "kuaimai_trades")
        take(page, f"{address}/dags/kuaimai_trades/runs/{trades}/tasks/seal", "trades.png", shows="sealed")
        status = finished(api, "kuaimai_status")
        take(
            page,
            f"{address}/dags/kuaimai_status/runs/{status}/tasks/complete",
            "status.png",
            shows="upd_time",
        )
        page.goto(f"{address}/dags/kuaimai_backfill")
        page.get_by_role("button", name="Trigger").first.click()
        page.get_by_text("dry").first.wait_for(timeout=60_000)
        page.wait_for_timeout(2_000)
        page.screenshot(path=PICTURES / "backfill.png")
        html = ROOT / ".demo" / "preview.html"
        subprocess.run(
            [ROOT / ".demo" / "kuaimai", "preview", "trades", "--html", html], check=True, capture_output=True
        )
        take(page, html.as_uri(), "preview.png", shows="upd_time")
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
