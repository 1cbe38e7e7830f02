"""What every other part uses: random draws, files, devices, precision, several processes, progress, checks."""
