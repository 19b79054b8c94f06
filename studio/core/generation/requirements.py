"""What settings of a request need to change anything, as people read it.

Knows: the words. Does not know: when they are met (rules.py), which setting needs which
(fields.py).
"""

REQUIRES_GUIDANCE = "a CFG scale above 1"
REQUIRES_IMAGE = "an image"
REQUIRES_UNMASKED_IMAGE = "an unmasked image"
REQUIRES_MASK = "a mask"
REQUIRES_MASK_OR_EXTENSION = "a mask or an extended side"
REQUIRES_ONLY_MASKED_AREA = "the inpaint area only masked"
REQUIRES_EXTENSION = "an extended side"
REQUIRES_COLOUR_FILL = "the extend fill colour"
REQUIRES_HIRES = "a hires scale above 1"
REQUIRES_HIRES_PIXELS = "a hires scale above 1 and upscaling in pixels"
REQUIRES_TILES = "a hires tile size"
REQUIRES_VARIATION = "a variation strength above 0"
REQUIRES_ETA_SOLVER = "the sampler DDIM or TCD"
REQUIRES_EULER = "the sampler Euler"
REQUIRES_CHURN = "the sampler Euler and a churn above 0"
REQUIRES_NOISE_SCALE = "the sampler DPM++ SDE, or Euler with a churn above 0"
REQUIRES_LEVEL_RANGE = "the sampler Euler with the schedule Karras or Exponential"
REQUIRES_KARRAS_EULER = "the sampler Euler with the schedule Karras"
REQUIRES_STEP_NOISE = "a sampler that adds noise at each step"
REQUIRES_ZERO_STAR = "a CFG scale above 1 with CFG-Zero*, in a pass that starts from pure noise"
REQUIRES_APG = "a CFG scale above 1 with APG"
REQUIRES_PROMPT_SIGNS = (
    "a prompt that the two syntaxes read differently, such as one with (word:1.3)"
)
REQUIRES_A1111_WEIGHT = "a weight in A1111's syntax, such as (word:1.3)"
