"""Which data, labels, code and people made a model: tables that follow from a log, and the questions asked of them."""
