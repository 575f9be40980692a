"""The engines of a simulation: many sites fast, over more processes or machines, in the protocol or a model of it."""
