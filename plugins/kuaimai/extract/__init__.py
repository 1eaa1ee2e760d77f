"""Extract: time windows in, raw pages in staging and a count for the proof out."""
