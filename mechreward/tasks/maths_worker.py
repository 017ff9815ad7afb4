"""Runs math-verify for `maths.Maths`: a question a line, an answer a line."""

import json
import re
import sys

POWER = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)[eE]([-+]?\d+)(?!\w)")


def main() -> None:
    """Answer until there are no more questions."""
    from math_verify import parse, verify  # pyright: ignore[reportMissingImports]

    print(json.dumps([0, "ready", ""]), flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        if question["gold"] is None:
            given = parse(in_powers(question["text"]), parsing_timeout=0)
            outcome = "read" if given else "none"
            print(json.dumps([question["number"], outcome, plain(given)]), flush=True)
            continue
        # Its own time limits are off: the process that asks has one.
        wanted, text = in_powers(question["gold"]), in_powers(question["text"])
        gold = parse(f"${wanted}$", parsing_timeout=0)
        gold = gold or parse(wanted, parsing_timeout=0)
        given = parse(text, parsing_timeout=0)
        said = str(given[-1]) if given else ""
        if not gold:
            outcome = "gold"
        elif not given:
            outcome = "none"
        else:
            outcome = "equal" if verify(gold, given, timeout_seconds=0) else "other"
        print(json.dumps([question["number"], outcome, said]), flush=True)


def plain(given: list) -> str:
    """What was parsed, in one spelling: a number as an exact fraction."""
    from sympy import Expr, nsimplify  # pyright: ignore[reportMissingImports]

    if not given:
        return ""
    value = given[0]
    if isinstance(value, Expr) and value.is_number and value.is_finite:
        value = nsimplify(value, rational=True)
    return str(value)


def in_powers(text: str) -> str:
    """`8e30`, which math-verify reads as letters, as a power of ten."""
    return POWER.sub(r"\1 \\times 10^{\2}", text)


if __name__ == "__main__":
    main()
