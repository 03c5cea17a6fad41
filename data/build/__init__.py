"""Raw text to a dataset: `build_dataset` where you say, `ensure_dataset` in the cache.

    parts of the source -> survey (each part, any worker): filters, hashes, signatures
                        -> decisions (once): exact duplicates, near-copies, the held-out split
                        -> tokenizer (once, on the train split), when none was given
                        -> encode (each part, any worker): token shards
                        -> manifest

What a part becomes depends on the part, the configuration and the decisions alone, never on who worked it
or when; so any number of workers gives the same bytes. Each finished part is kept under the hash
of all that it depends on: a build that is killed, or fails, goes on from what is finished.
"""

from data.build.dataset import build_dataset, cache_dir, ensure_dataset

__all__ = ["build_dataset", "cache_dir", "ensure_dataset"]
