"""Is my data complete? Green or red, every morning and by hand; the log says what is missing."""

from kuaimai.airflow.settings import pipelines_folder
from kuaimai.airflow.standing import status_dag

dag = status_dag(pipelines_folder(__file__))
