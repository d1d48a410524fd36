"""DECONTAMINATE: documents and conversations that hold items of a benchmark are found and dropped."""
