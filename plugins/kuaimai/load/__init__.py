"""Load: typed batches in, rows and their proof out, in one transaction.

`protocol` says what a target is; `windows` and `held` are what it is given and gives back. A database is made
in layers: `database` (connections and tables), `book` (the proof tables), `sql` (merging records, and
`proving` them), then a module for each dialect. Targets that cannot hold their own proof have it `booked`.
"""
