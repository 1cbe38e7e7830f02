"""Experiments as small modules, ``python -m results.NAME``, each beside the folder of what it produced."""
