"""The two kinds of error that podcluster raises; what happens to a guest is never one of them, it is a row of a table.

Each takes one string, so that it survives the pickling that brings it back from an actor (an exception with a richer
`__init__` would arrive as something else).
"""


class PodclusterError(Exception):
    """Base of every error that podcluster raises on purpose."""


class ConfigError(PodclusterError):
    """The user's mistake, in one line: the key or file, the rule, the value, the remedy. Exit status 2."""


class InvariantError(PodclusterError):
    """Our mistake: a rule that must always hold does not. The text carries its tag, the numbers and the place."""
