"""Why a command ends without its result."""


class CannotRunError(Exception):
    """Nothing was begun; the message ends with the remedy."""


class FailedError(Exception):
    """It was begun and failed; the message says what, what was observed, and what to do next."""
