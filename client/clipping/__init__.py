"""Sums of clipped gradients: three ways to the same sum, and the choice between them."""
