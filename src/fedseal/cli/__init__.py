"""The command line: loads configuration, builds, runs, prints."""
