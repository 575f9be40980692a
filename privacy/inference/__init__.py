"""What follows from private releases: numbers with the interval that their noise leaves open. Knows no data."""
