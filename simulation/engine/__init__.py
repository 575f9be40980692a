"""The engines of a simulation: the same ServerApp, ClientApp and strategies, over more processes or machines."""
