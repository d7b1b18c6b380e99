"""The pilot: policies take turns on a running site, and what adopting the current one changes is told."""
