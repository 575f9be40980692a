"""Models on their way into use: bundles, approvals, gates, aliases. What holds follows from the federation's log."""
