"""Runs math-verify for `maths.Maths`: a question a line, an answer a line."""

import json
import sys


def main() -> None:
    """Answer until there are no more questions."""
    from math_verify import parse, verify  # pyright: ignore[reportMissingImports]

    print(json.dumps(["ready", ""]), flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        # Its own time limits are off: the process that asks has one.
        gold = parse(f"${question['gold']}$", parsing_timeout=None)
        gold = gold or parse(question["gold"], parsing_timeout=None)
        given = parse(question["text"], parsing_timeout=None)
        said = str(given[-1]) if given else ""
        if not gold:
            outcome = "gold"
        elif not given:
            outcome = "none"
        else:
            outcome = "equal" if verify(gold, given, timeout_seconds=None) else "other"
        print(json.dumps([outcome, said]), flush=True)


if __name__ == "__main__":
    main()
