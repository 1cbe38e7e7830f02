"""Helpers that every other folder uses: random draws, files, devices, precision, processes, progress, checks."""
