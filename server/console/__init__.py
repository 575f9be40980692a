"""The console: web pages for the people who run, check and answer for a federation.

A process of its own with a listener of its own, which reads what the server and the log have on disk. It sends nothing
to sites and orders no runs. See docs/console.md.
"""
