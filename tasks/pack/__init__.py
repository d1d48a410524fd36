"""Clean documents to training records: the tokenizer, the mixture by token budget, ArrayRecord shards."""
