"""Pipelines: what to mirror, as data (`spec`); and what a run does with them, plain functions.

A run cuts its time into `slices`, takes each through the `stages`, which hand `manifests` to one another, and
adds them up in a `summary`.
"""
