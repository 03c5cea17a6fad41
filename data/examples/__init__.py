"""Examples: conversations, preference pairs and rankings, from rows of JSON to samples.

    messages.py          a row of any format -> candidates, each a checked conversation
    python_functions.py  a Python file -> rows: signature and docstring, and the body that answers them
    templates.py         a conversation -> text, in which the assistant's turns are marked
    chat_templates/      the shipped templates, in Jinja
    encoding.py          that text -> ids, and the spans of them that are trained
    build.py             a source of rows -> a dataset: token shards, and beside each sequence its spans
    table.py             what is beside the sequences of a split, in memory
    supervised.py        position -> a row of whole examples laid side by side (supervised fine-tuning)
    groups.py            position -> the candidates of one prompt (reward models, direct methods)

The dataset is one like any other: a sequence is a document of the token shards, and the hashed row of
`documents.jsonl` that says where it comes from also says which of its tokens are trained (`spans`), which
example it belongs to (`group`: its place and their number), how it ranks there, and what it weighs.
"""
