"""The English of Python's own help: a text that every Python carries."""

from __future__ import annotations

import re

from automl.child_trainers.data.text import TextData, make_text, tenths, tokens_of


def load_pydoc(*, level: str, vocabulary_size: int | None) -> TextData:
    """The English of Python's own help topics, lower-cased words alone: about 65,000 that every Python carries.

    An `<eos>` stands at the end of each paragraph. Another release of Python has other topics.
    """
    from pydoc_data.topics import topics

    text = "\n\n".join(topics[name] for name in sorted(topics)).lower()
    paragraphs = (re.findall(r"[a-z]+(?:'[a-z]+)?", part) for part in re.split(r"\n\s*\n", text))
    plain = "\n".join(" ".join(words) for words in paragraphs if words)
    return make_text("pydoc", tenths(tokens_of(plain, level)), level=level, vocabulary_size=vocabulary_size)
