"""Makes the package visible among Airflow's plugins."""

from __future__ import annotations

from kuaimai.airflow.compat import AirflowPlugin


class KuaimaiPlugin(AirflowPlugin):
    """Shows under Admin → Plugins that the package is installed, and once only."""

    name = "kuaimai"
