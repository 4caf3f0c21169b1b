"""Names of classes with their article, as sentences have them."""

from __future__ import annotations


def with_article(name: str) -> str:
    """``a list``, ``an int``; an abbreviation such as ``SVC`` has the article of a word."""
    return f"{'an' if name[:1].lower() in set('aeio') or name.startswith('un') else 'a'} {name}"


def described(value: object) -> str:
    """A value by its class: ``a list``, ``an int``, and ``None`` itself."""
    return "None" if value is None else with_article(type(value).__name__)
