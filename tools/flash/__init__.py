"""All that a board needs, in one folder: client, packages, certificate, settings, models, installer."""
