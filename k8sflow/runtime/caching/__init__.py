"""The cache keys of steps: what their code is made of."""
