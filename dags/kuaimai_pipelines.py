"""One Airflow DAG for each pipeline in include/pipelines (KUAIMAI_PIPELINES names another folder)."""

from kuaimai.airflow.dags import pipeline_dags
from kuaimai.airflow.settings import pipelines_folder

for dag in pipeline_dags(pipelines_folder(__file__)):
    globals()[dag.dag_id] = dag
