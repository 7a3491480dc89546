"""The error of what a user, not the program, has to mend."""


class UserError(ValueError):
    """Input, configuration or files that cannot be used; the message says what to do.

    The commands print it without a traceback.
    """
