"""How short and how coarse a user's own vectors may be: measured on their corpus and queries."""
