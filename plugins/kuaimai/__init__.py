"""Kuaimai (快麦 ERP) on Airflow: a complete, provably gap-free mirror of a merchant's ERP data.

The package root imports nothing: Airflow imports it during provider discovery.
"""

__version__ = "0.1.0"
