"""Conversations that the tests of chat templates share, and a tokenizer that has every template's tokens."""

from functools import cache

from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

from data.tokenizers.tokenizer_json import JsonTokenizer

TEMPLATES = ("chatml", "gemma", "llama3", "mistral", "plain", "qwen", "zephyr")
END_OF_TURN = {
    "chatml": "<|im_end|>",
    "gemma": "<end_of_turn>",
    "llama3": "<|eot_id|>",
    "mistral": "</s>",
    "plain": "</s>",
    "qwen": "<|im_end|>",
    "zephyr": "</s>",
}
WITHOUT_TOOLS = ("gemma", "plain", "zephyr")
SPECIAL = (
    "<s>", "</s>", "<bos>", "<start_of_turn>", "<end_of_turn>", "<|begin_of_text|>", "<|start_header_id|>",
    "<|end_header_id|>", "<|eot_id|>", "<|im_start|>", "<|im_end|>", "[INST]", "[/INST]", "[TOOL_CALLS]",
    "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]",
)  # fmt: skip


def turn(role, content, **more):
    return {"role": role, "content": content, **more}


LOOK_UP = {"type": "function", "function": {"name": "weather", "parameters": {"city": "string"}}}
CALL = {"type": "function", "id": "abcdefghi", "function": {"name": "weather", "arguments": {"city": "Ulm"}}}
ROWS = {
    "one turn": {"messages": [turn("user", "2 + 2?"), turn("assistant", "4.")]},
    "several turns": {
        "messages": [
            turn("user", "Name a river."),
            turn("assistant", "The Danube."),
            turn("user", "Another,\nplease."),
            turn("assistant", "The Iller."),
        ]
    },
    "system": {
        "messages": [
            turn("system", "Be brief."),
            turn("user", "2 + 2?"),
            turn("assistant", "4."),
            turn("user", "3 + 3?"),
            turn("assistant", "6."),
        ]
    },
    "tools": {
        "messages": [
            turn("system", "Use tools."),
            turn("user", "Rain in Ulm?"),
            turn("assistant", "", tool_calls=[CALL]),
            turn("tool", '{"rain": false}', tool_call_id="abcdefghi"),
            turn("assistant", "No rain."),
        ],
        "tools": [LOOK_UP],
    },
}


@cache
def tokenizer() -> JsonTokenizer:
    """Bytes, and the special tokens of all templates."""
    vocab = {byte: id for id, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Backend(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(SPECIAL))
    return JsonTokenizer(backend.to_str(), "the test's tokenizer")
