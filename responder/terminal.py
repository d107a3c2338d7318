"""Text from elsewhere, as a terminal may show it."""

# A terminal obeys control characters: ESC begins a command that clears the screen or, in some,
# types an answer; a line break begins a line that responder never wrote; and characters without a
# width of their own change what is read. For example, U+202E turns the letters after it around.

from __future__ import annotations

import json


def visible(text: str, *, keep: str = "") -> str:
    r"""Return text whose characters that cannot be printed are escaped, as JSON escapes them.

    JSON stays the same JSON.

    Args:
        text: from anywhere.
        keep: the characters that stay although they cannot be printed, such as line breaks.

    >>> visible("a\x1b[2Jb")
    'a\\u001b[2Jb'
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in keep else json.dumps(char)[1:-1] for char in text
    )
