"""The verb `bench`: which benchmarks there are, their options, and how their figures are printed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from podcluster.errors import ConfigError

BENCHMARKS = {
    "trace": "whole hosts that follow a month of demand",
    "placement": "best fit and first fit on 100 to 10,000 hosts",
    "storm": "10,000 hosts of 40 guests that boot all at once",
    "density": "how many hosts that are not in flight a GiB of memory holds",
    "pod": "the page kernels: populates, touches, sweeps, memory, compilation, start-up",
}
"""By name; the module `podcluster.bench.NAME` has `measure`, `BOUNDS` and `REPEAT`."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"bench: {message}; try `podcluster bench --help`")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line; a mistake is a ConfigError."""
    parser = _Parser(prog="podcluster bench", description=__doc__)
    names = parser.add_subparsers(dest="name", metavar="NAME", required=True)
    for name, text in BENCHMARKS.items():
        one = names.add_parser(name, help=text, description=text)
        one.add_argument("--repeat", type=_positive, metavar="N", help="measurements of each figure")
        one.add_argument("--quick", action="store_true", help="leave out what takes long")
        if name in ("storm", "density"):
            one.add_argument("--hosts", type=_positive, metavar="N", help="so many hosts instead")
        if name == "storm":
            one.add_argument("--curve", action="store_true", help="a hundredth and a tenth of the hosts before them")
        one.add_argument("--out", type=Path, metavar="FILE", help="write the JSON object there too")
    options = parser.parse_args(argv)
    if options.out is not None and not options.out.parent.is_dir():
        raise ConfigError(f"bench --out: the folder of {options.out} is not there; make it first")
    return options


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, got {text!r}")
    return int(text)


def show(figures: Mapping[str, Any], bounds: Mapping[str, tuple[str, float]]) -> str:
    """A line per bounded figure: its value, the bound, and whether it was kept."""
    lines = []
    for key, (relation, bound) in bounds.items():
        if key in figures:
            value = figures[key]
            kept = value >= bound if relation == ">=" else value <= bound
            verdict = "kept" if kept else "MISSED"
            lines.append(f"{key:24} {value:>16,.6g}   bound {relation} {bound:,.6g}: {verdict}\n")
    return "".join(lines)


def main(argv: Sequence[str]) -> int:
    """`podcluster bench NAME`: figures on standard error, one JSON object as the last line of standard output."""
    options = parse(argv)
    module = import_module(f"podcluster.bench.{options.name}")
    asked = {name: value for name, value in vars(options).items() if name not in ("name", "repeat", "out")}
    figures = module.measure(options.repeat or module.REPEAT, **asked)
    sys.stderr.write(show(figures, module.BOUNDS))
    line = json.dumps({"benchmark": options.name, **figures})
    if options.out is not None:
        options.out.write_text(line + "\n", encoding="utf-8")
    sys.stdout.write(line + "\n")
    return 0
