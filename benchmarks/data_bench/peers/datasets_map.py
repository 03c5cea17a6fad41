"""Tokenize a JSONL file with `datasets.map`: CORPUS TOKENIZER OUT. Run by the peers' Python."""

import json
import sys
import time

import datasets
import tokenizers

corpus, definition, out = sys.argv[1:]
datasets.disable_progress_bars()
tokenizer = tokenizers.Tokenizer.from_file(definition)
end_of_text = tokenizer.token_to_id("<|endoftext|>")


def encode(rows: dict[str, list[str]]) -> dict[str, list[list[int]]]:
    """Ids of each text with the end-of-text id after them."""
    encodings = tokenizer.encode_batch_fast(rows["text"], add_special_tokens=False)
    return {"input_ids": [[*encoding.ids, end_of_text] for encoding in encodings]}


started = time.perf_counter()
dataset = datasets.load_dataset("json", data_files=corpus, split="train", cache_dir=f"{out}-cache")
dataset = dataset.map(encode, batched=True, remove_columns=dataset.column_names)
dataset.save_to_disk(out)
seconds = time.perf_counter() - started
tokens = sum(len(ids) - 1 for ids in dataset["input_ids"])
print(json.dumps({"seconds": seconds, "tokens": tokens}))
