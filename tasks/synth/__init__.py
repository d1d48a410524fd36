"""SYNTH: documents to synthetic documents by a teacher, with gates that reject what it gets wrong."""
