"""Pipelines: what to mirror, as data; and the stages that do it, each a plain function."""
