"""A model's opinion of training records: which words it would put next, and with which probability."""
