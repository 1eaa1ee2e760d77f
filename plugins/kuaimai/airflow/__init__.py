"""The only room that imports Airflow; what differs between its versions is in `compat` and `deadlines`."""
