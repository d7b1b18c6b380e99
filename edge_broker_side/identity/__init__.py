"""Who belongs to a site: its certificate authority, its accounts with their roles, and whom it has revoked."""
