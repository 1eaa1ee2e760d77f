"""The drop-in door: Airflow loads this file from its plugins folder and finds the package beside it."""

from kuaimai.airflow.plugin import KuaimaiPlugin

__all__ = ["KuaimaiPlugin"]
