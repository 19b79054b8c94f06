"""Stable Diffusion 2.x, as it is computed: like SD 1.x, with another text encoder's sizes."""

from __future__ import annotations

from studio.engine.models.families.sd1 import Model

__all__ = ["Model"]
