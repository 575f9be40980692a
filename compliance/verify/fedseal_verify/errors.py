"""What can be wrong with an input. Which exit code it gets is for the command to say."""


class MalformedError(Exception):
    """Bytes that do not have the form their specification gives them. The message says which rule they break."""


class UnreadableError(Exception):
    """A file that is missing, too large or cannot be read."""


class UsageError(Exception):
    """The command was given something it cannot work with: exit code 2."""
