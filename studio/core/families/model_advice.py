"""What the name of a model suggests and its weights do not say: advice, never a decision.

Knows: words in the names of distilled merges, and of models that predict v. Does not know: files;
what was decided (storage/models/model_choices.py).

Distilled merges have the shapes of any other model; merges of models that predict v often lose the
mark that says so, and paint nothing but noise without it.
"""

from __future__ import annotations

import re
from typing import Any

from studio.core.families.family import FamilyName
from studio.core.families.registry import FAMILIES

# Words of the methods (arXiv:2402.13929, 2404.13686, 2311.17042, 2310.04378, 2405.14867).
_DISTILLED = re.compile(
    r"(?:(?<![A-Za-z])|(?<=[xX][lL]))(?i:lightning|hyper|turbo|lcm|dmd2?)(?![a-z])"
)
_STEPS = re.compile(r"(?<!\d)(\d{1,2})[-_ ]?steps?(?![a-z])", re.IGNORECASE)
_V_PREDICTION = re.compile(r"(?<![a-z])v[-_ .]?pred", re.IGNORECASE)
_MAX_NAMED_STEPS = 12
_USUAL = {"steps": 6, "guidance": 1.5}
# Made for the scheduler of latent consistency models.
_CONSISTENCY_METHODS = ("lcm", "dmd", "dmd2")
V_PREDICTION_QUESTION = (
    "Its name says v-prediction, but its file does not. If its images are only noise or odd "
    "colours, choose v_prediction for it in the Models tab."
)


def suggest_settings(name: str, family: FamilyName) -> dict[str, Any]:
    """Return the settings that a distilled model by this name wants; empty for any other.

    Args:
        name: The model's.
        family: What it is of; those with settings from their authors need no guess.
    """
    method = _DISTILLED.search(name)
    if method is None or FAMILIES[family].noise_process == "flow":
        return {}
    settings: dict[str, Any] = dict(_USUAL)
    steps = _STEPS.search(name)
    if steps and 1 <= int(steps[1]) <= _MAX_NAMED_STEPS:
        settings["steps"] = int(steps[1])
    if method[0].lower() in _CONSISTENCY_METHODS:
        settings |= {"scheduler": "LCM", "noise_schedule": "Automatic", "guidance": 1.0}
    return settings


def asks_about_prediction(name: str, prediction_type: str) -> bool:
    """Return whether a model's name says that it predicts v, and its file does not."""
    return prediction_type == "epsilon" and bool(_V_PREDICTION.search(name))
