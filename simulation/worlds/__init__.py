"""What sites have of every step: a population, spread over sites, that drifts by a declared schedule."""
