"""How the arguments of `podcluster` and its verbs are read: a mistake in them is a ConfigError of one line."""

from __future__ import annotations

import argparse
from typing import NoReturn

from podcluster.errors import ConfigError


class OneLineParser(argparse.ArgumentParser):
    """A parser that says what is wrong as all of podcluster does, where argparse alone takes two lines and exits."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print."""
        raise ConfigError(f"{message}: {self.prog} --help lists what there is")
