"""Updates over the air: what a board should have is fetched, proved, tried out, and kept or left again."""
