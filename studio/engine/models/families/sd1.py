"""Stable Diffusion 1.x, as it is computed."""

from __future__ import annotations

from transformers import CLIPTextModel, CLIPTokenizer

from studio.engine.models.families.unet import UNetModel


class Model(UNetModel):
    """A U-Net that reads one text encoder."""

    text_classes = ((CLIPTokenizer, CLIPTextModel),)
