"""Prompts as templates: wildcards, variants and variables, styles, lists of prompts."""
