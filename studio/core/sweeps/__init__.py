"""A sweep: axes, the syntax of their values, the plan of cells and what it will cost."""
