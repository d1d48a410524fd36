"""Labelled examples to train a classifier on: chosen sources against others, or marks that a teacher gave."""
