"""The errors that a user's input can cause; the command line prints them as one line, without a traceback."""


class FlexiASTError(Exception):
    """Something a user gave is wrong: the message names it, what was found and what was expected."""


class DataError(FlexiASTError):
    """A manifest, a label table or an audio file is unusable."""


class CheckpointError(FlexiASTError):
    """A checkpoint is unreadable, or does not hold what its description says."""


class ConfigError(FlexiASTError):
    """A setting is out of its range, or contradicts another one."""
