"""Every night: the last days of every pipeline, counted once more against the gateway."""

from kuaimai.airflow.reconcile import reconcile_dag
from kuaimai.airflow.settings import pipelines_folder

dag = reconcile_dag(pipelines_folder(__file__))
