"""The live view of a fleet in a browser: a memory, the link that feeds it, and the pages that draw it."""
