"""The past on demand: trigger it with a form; nothing runs by itself."""

from kuaimai.airflow.backfill import backfill_dag
from kuaimai.airflow.settings import pipelines_folder

dag = backfill_dag(pipelines_folder(__file__))
