"""Pocket: the embedded models, made here from images that world.py draws; nothing is downloaded."""
