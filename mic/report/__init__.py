"""How results look: tables, figures and one HTML page."""
