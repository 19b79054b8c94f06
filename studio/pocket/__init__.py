"""Pocket: the embedded models. They are made here, from pictures that `world` draws; nothing is downloaded."""
