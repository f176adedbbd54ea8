"""The help texts of Python: an English text that is part of every Python installation."""

from __future__ import annotations

import re

from automl.child_trainers.data.text import TextData, make_text, tenths, tokens_of


def load_pydoc(*, level: str, vocabulary_size: int | None) -> TextData:
    """Loads the text of Python's help topics: about 65,000 lower-case words, without numbers and punctuation.

    Each paragraph ends with `<eos>`. The topics differ between releases of Python.

    Args:
        level: `word` or `character`, the unit of a token.
        vocabulary_size: types in the vocabulary, None for all.
    """
    from pydoc_data.topics import topics

    text = "\n\n".join(topics[name] for name in sorted(topics)).lower()
    paragraphs = (re.findall(r"[a-z]+(?:'[a-z]+)?", part) for part in re.split(r"\n\s*\n", text))
    plain = "\n".join(" ".join(words) for words in paragraphs if words)
    return make_text("pydoc", tenths(tokens_of(plain, level)), level=level, vocabulary_size=vocabulary_size)
