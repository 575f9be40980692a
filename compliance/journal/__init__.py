"""What a site and a federation's server write down, and how each lets the other see it."""
