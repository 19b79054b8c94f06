"""Sweeps: many cells run as one job (run), shown as a labelled sheet (sheet) and as a page that needs no studio (viewer)."""
