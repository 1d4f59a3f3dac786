"""Which losses are minimised, at which weight and width, exact over chunks and ranks."""
