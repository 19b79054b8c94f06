"""HOW it is computed: torch lives here and nowhere else."""

import os

# OpenMP threads that wait for each other spin. Where another program has one of the cores, the
# thread that lost it keeps all others spinning for its whole time slice: a U-Net call of the
# bundled model took 930 ms instead of 37. Spinning less long ends that (36 ms) and costs an idle
# machine nothing (37 ms). GNU's OpenMP reads this once, when torch is loaded; a user's own value
# stays.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

# transformers tells every program without torchvision that it takes Pillow instead, which is what
# we want.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
