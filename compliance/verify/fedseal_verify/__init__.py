"""An offline verifier of fedseal's audit log. Written from the formats' specifications; shares no code with fedseal."""

__version__ = "0.1.0"
