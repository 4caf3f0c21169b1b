"""Amounts as people read them."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """A length of time: ``4.2 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 60:  # noqa: PLR2004  seconds in a minute
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def rough_duration(seconds: float) -> str:
    """A length of time without fractions: ``15 s``, ``10 min``."""
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"  # noqa: PLR2004  two minutes


def rough_age(seconds: float) -> str:
    """A length of time in its largest unit: ``15 s``, ``10 min``, ``3 h``, ``12 days``."""
    if seconds < 2 * 3600:
        return rough_duration(seconds)
    return f"{seconds / 3600:.0f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"


def size(count: int) -> str:
    """A number of bytes, in decimal units: ``999 B``, ``1.5 kB``, ``4.0 GB``."""
    if count < 1000:  # noqa: PLR2004  as the units say
        return f"{count} B"
    power = min((len(str(count)) - 1) // 3, 4)
    return f"{count / 1000**power:.1f} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"


def count(number: int, noun: str) -> str:
    """A number of things: ``1 package``, ``1,200 packages``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
