"""Sweeps: many cells generated as one job, shown as a labelled sheet or an interactive page."""
