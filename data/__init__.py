"""Raw text to documents, token shards and batches."""
