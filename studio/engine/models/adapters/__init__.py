"""Adapters of a lent model. One module a kind."""
