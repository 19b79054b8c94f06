"""Captions as texts: cleaning, filters, edits, lint, who wrote what, questions to a CLIP."""
