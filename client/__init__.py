"""The data-holding site: the task, its trainer, and the mod that lets nothing but sealed sums out."""
