"""Writes the pocket's model card and scores beside the weights.

Knows: what the models are, how they were made and what was measured.
Does not know: how anything is measured (evaluate.py).
"""

import json
from pathlib import Path

from studio.pocket import autoencoder, captioner, clip, diffusion, judge, upscaler
from studio.pocket.evaluate import Scores, format_table
from studio.pocket.world import COLOUR_NAMES, PLACE_NAMES, STYLE_NAMES, THING_NAMES

CARD_TEMPLATE = (
    "---\n"
    "license: apache-2.0\n"
    "---\n"
    "# Pocket\n"
    "\n"
    "Small models that this repository draws its own pictures for and trains itself. "
    "Nothing was downloaded; no photograph and no person is in the training\n"
    "pictures. Weights and pictures are ours, Apache-2.0.\n"
    "\n"
    "| folder | class | made in |\n"
    "|---|---|---|\n"
    "| (here) | StableDiffusionPipeline at 128 x 128: "
    "AutoencoderKL, CLIPTextModel, UNet2DConditionModel, CLIPTokenizer "
    "| {vae} + {diffusion} steps |\n"
    "| clip/ | CLIPModel, CLIPProcessor | {clip} steps |\n"
    "| captioner/ | GitForCausalLM (AutoModelForImageTextToText, AutoProcessor) "
    "| {captioner} steps |\n"
    "| judge/ | studio.engine.evaluation.judge.Judge: thing, colour, place, style, demo concept "
    "| {judge} steps |\n"
    "| upscaler/ | studio.engine.upscaling.compact.CompactNetwork: 128 to 512 pixels "
    "| {upscaler} steps |\n"
    "\n"
    "## What it knows\n"
    'Prompts like "a photo of a red ball on a beach".\n'
    "- styles: {styles}\n"
    "- colours: {colours}\n"
    "- things: {things}\n"
    "- places: {places}\n"
    '- also "big", "small", "on the left", "in the middle", "on the right", '
    '"by day", "at sunset", "at dusk"\n'
    "\n"
    "512 of the 2,560 combinations were never trained on (except by the judge); "
    "nor were the two concepts of the demos, the cratered Moon and `mysks`, which\n"
    "only the judge knows. Anything else it does not know: "
    "it is for trying and testing a studio, not for making pictures of the world.\n"
    "\n"
    "## How it was made\n"
    "`python -m studio.pocket train` draws the pictures and trains all parts; "
    "it may be stopped and goes on. `evaluate` measures what stands below.\n"
    "\n"
    "## Scores\n"
    "{scores}\n"
)


def write_model_card(output_dir: Path, scores: Scores) -> None:
    """Write output_dir/README.md and output_dir/scores.json."""
    card = CARD_TEMPLATE.format(
        vae=autoencoder.TRAINING_PLAN.steps,
        diffusion=diffusion.TRAINING_PLAN.steps,
        clip=clip.TRAINING_PLAN.steps,
        captioner=captioner.TRAINING_PLAN.steps,
        judge=judge.TRAINING_PLAN.steps,
        upscaler=upscaler.TRAINING_PLAN.steps,
        styles=", ".join(STYLE_NAMES),
        colours=", ".join(COLOUR_NAMES),
        things=", ".join(THING_NAMES),
        places=", ".join(PLACE_NAMES),
        scores=format_table(scores),
    )
    (output_dir / "README.md").write_text(card)
    (output_dir / "scores.json").write_text(json.dumps(scores, indent=1) + "\n")
