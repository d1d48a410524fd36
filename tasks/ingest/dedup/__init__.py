"""Deduplication: exact and near copies, repeated lines, held-out documents; in bounded memory."""
