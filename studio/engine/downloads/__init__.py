"""Downloads as jobs."""
