"""Load: typed batches in, rows and their proof out, in one transaction."""
