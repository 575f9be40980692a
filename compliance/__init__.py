"""What a site allows and what is written down about it. Knows neither Flower nor torch."""
