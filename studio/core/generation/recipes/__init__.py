"""Recipes that come with images of any program."""
