"""The command `splitfleet report`, and the forms in which a report is read."""
