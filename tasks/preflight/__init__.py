"""The preflight stage: compile a preset's real train step for its slice, without a chip, and say what the run costs."""
