# The first Python on this machine that fits, best one that can also hold Airflow 2.11 (up to 3.12).
# Another: make PYTHON=/path/to/python test
PYTHON ?= $(shell for newest in 12 13; do \
	for each in python3 python3.11 python3.12 python3.10 python3.13; do \
	$$each -c "import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, $$newest))" 2>/dev/null \
	&& echo $$each && exit; done; done)
# Without one the message of tools/environments.py says what is needed.
RUN = $(or $(PYTHON),python3)
.DEFAULT_GOAL := help
.PHONY: help demo demo-once test lint bench lock clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 14

demo: ## Airflow 3.3 with the DAG, a sandbox gateway and a PostgreSQL on this machine; Ctrl-C stops all
	@$(RUN) tools/environments.py airflow3
	@exec .venv-airflow3/bin/python demo/run.py

demo-once: ## One interval without a UI, checked against the sandbox's truth; the last line is JSON
	@$(RUN) tools/environments.py airflow3
	@exec .venv-airflow3/bin/python demo/run.py --once

test: ## All tests: the core without Airflow, then everything on Airflow 3.3 and on 2.11
	@$(RUN) tools/environments.py --that-fit core airflow3 airflow2
	@exec $(RUN) tools/run_tests.py

lint: ## ruff (rules and format) and mypy
	@$(RUN) tools/environments.py core airflow3
	.venv-core/bin/ruff check
	.venv-core/bin/ruff format --check
	.venv-core/bin/mypy plugins/kuaimai --exclude '/kuaimai/(airflow/|cli\.py)'
	.venv-airflow3/bin/mypy
	.venv-airflow3/bin/mypy tools demo

bench: ## Every benchmark, some 40 minutes; BENCH=--whole for hours, BENCH=--resume to go on, BENCH=--list
	@$(RUN) tools/environments.py airflow3 bench
	@exec .venv-bench/bin/python benchmarks/bench.py $(BENCH)

lock: ## Resolve constraints/*.txt anew from pyproject.toml, keeping the pins that still fit
	@$(RUN) tools/lock.py

clean: ## Remove the environments, the demo's data and test output
	rm -rf .venv-core .venv-airflow3 .venv-airflow2 .venv-bench .venv-uv .demo .bench build .pytest_cache .mypy_cache .ruff_cache
