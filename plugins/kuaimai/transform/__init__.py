"""Transform: raw pages in, typed columnar batches and a quarantine out. Repeatable without the gateway."""
