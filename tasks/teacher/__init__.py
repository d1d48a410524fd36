"""TEACHER: a small real model from pinned packages, checked and made into a Hugging Face directory."""
