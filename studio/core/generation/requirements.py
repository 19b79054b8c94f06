"""What settings of a request need to change anything, as people read it.

Knows: the words. Does not know: when they are met (rules.py), which setting needs which
(fields.py).
"""

REQUIRES_GUIDANCE = "a guidance above 1"
REQUIRES_IMAGE = "a picture"
REQUIRES_UNMASKED_IMAGE = "a picture without a mask"
REQUIRES_MASK = "a mask"
REQUIRES_MASK_OR_EXTENSION = "a mask or an extension"
REQUIRES_ONLY_MASKED_AREA = "an inpaint area of only masked"
REQUIRES_EXTENSION = "an extension"
REQUIRES_COLOUR_FILL = "an extend fill of colour"
REQUIRES_HIRES = "a hires scale above 1"
REQUIRES_HIRES_PIXELS = "a hires scale above 1 and a hires resize of pixel"
REQUIRES_TILES = "a hires tile"
REQUIRES_VARIATION = "a variation strength above 0"
REQUIRES_ETA_SOLVER = "a scheduler of DDIM or TCD"
REQUIRES_EULER = "a scheduler of Euler"
REQUIRES_CHURN = "a scheduler of Euler and a churn above 0"
REQUIRES_NOISE_SCALE = "a scheduler of DPM++ SDE, or Euler and a churn above 0"
REQUIRES_LEVEL_RANGE = "a scheduler of Euler on Karras or Exponential"
REQUIRES_KARRAS_EULER = "a scheduler of Euler on Karras"
REQUIRES_STEP_NOISE = "a scheduler that draws noise in its steps"
REQUIRES_ZERO_STAR = "a guidance above 1 by CFG-Zero* in a pass that begins with noise alone"
REQUIRES_APG = "a guidance above 1 by APG"
REQUIRES_PROMPT_SIGNS = "a prompt that the grammars may read apart, such as one with (word:1.3)"
REQUIRES_A1111_WEIGHT = "a weight in A1111's way, such as (word:1.3)"
