"""How long a text is for a language model, near enough to fit a prompt to a budget. What was used is what the API counts."""

import math

BYTES_PER_TOKEN = 3.0
"""Of English and Python, on the safe side: present tokenizers make about 3 to 4 bytes of each."""


def count_tokens(text: str) -> int:
    """Tokens of a text, estimated."""
    return math.ceil(len(text.encode(errors="replace")) / BYTES_PER_TOKEN)
