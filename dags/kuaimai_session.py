"""Keeps the 30-day session alive even while every pipeline is paused, and clears old staging."""

from kuaimai.airflow.dags import session_dag

dag = session_dag()
