"""The packages of steps: resolved to a lock, and installed from it into environments, by uv."""
