"""Tokenize a JSONL file with datatrove: CORPUS TOKENIZER OUT. Run by the peers' Python."""

import json
import sys
import time
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer

corpus, tokenizer, out = sys.argv[1:]
pipeline = [
    JsonlReader(str(Path(corpus).parent), glob_pattern=Path(corpus).name),
    DocumentTokenizer(
        output_folder=out,
        tokenizer_name_or_path=tokenizer,
        eos_token="<|endoftext|>",
        shuffle_documents=False,
    ),
]
executor = LocalPipelineExecutor(pipeline=pipeline, tasks=1, workers=1, logging_dir=f"{out}-logs")
started = time.perf_counter()
executor.run()
seconds = time.perf_counter() - started
index = sum(file.stat().st_size // 8 for file in Path(out).glob("*.index"))
tokens = sum(file.stat().st_size // 2 for file in Path(out).glob("*.ds"))
sys.stdout.write("\n" + json.dumps({"seconds": seconds, "tokens": tokens - index}) + "\n")
