"""CLASSIFY: a fastText classifier of educational value, its scores beside every document, and the cut by score."""
