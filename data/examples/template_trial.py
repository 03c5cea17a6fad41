"""Renders a chat template in a process of its own, with little memory and time: `python -m` this file.

Jinja's sandbox keeps a template from files and attributes, not from loops without end or a text of any
length. Reads [source, origin, special tokens, end of text] as JSON; exits with 0 when the template came to an
end, also with an error, which is then raised again where it can be explained.
"""

import contextlib
import json
import resource
import sys

from data.examples.templates import CPU_S, Template
from seedbed.errors import SeedbedError

MEMORY_BYTES = 2**30


def main() -> None:
    source, origin, special_tokens, end_of_text = json.load(sys.stdin)
    with open("/proc/self/statm", encoding="ascii") as file:
        own = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (own + MEMORY_BYTES, own + MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    with contextlib.suppress(SeedbedError):
        Template(source, origin, special_tokens, end_of_text).check()


if __name__ == "__main__":
    main()
