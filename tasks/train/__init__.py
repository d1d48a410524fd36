"""Packed records to a trained model: the feed, the trainer (a process of its own), and what starts and watches it."""
