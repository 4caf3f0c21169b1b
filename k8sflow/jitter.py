"""Random pauses, which keep many clients from trying again at the same moment.

They don't come from the generator of the ``random`` module: users seed that one and rely on what it gives.
"""

from __future__ import annotations

import random

JITTER = random.SystemRandom()
