"""The wrapped and the unwrapped example differ only in the six marked lines and main's arguments."""

import difflib
import os
import re
import sys

here = os.path.join(os.path.dirname(__file__), "..", "..", "examples", "plain_loop")


def program(name):
    lines = open(os.path.join(here, name), encoding="utf-8").read().splitlines()
    return [line for line in lines if not line.startswith("// ")]  # the description at the top of the file


wrapped, unwrapped = program("plain_loop.cc"), program("unwrapped.cc")
added, removed = [], []
for line in difflib.ndiff(unwrapped, wrapped):
    if line.startswith("+ "):
        added.append(line[2:])
    elif line.startswith("- "):
        removed.append(line[2:])

marks = [match.group(1) for line in added if (match := re.search(r"// (\d)$", line))]
unmarked = [line for line in added if not re.search(r"// \d$", line) and line != "int main(int argc, char** argv) {"]
allowed_removed = ("int main() {", "make_data_loader", "for (int epoch", "return 0;")
foreign = [line for line in removed if not any(words in line for words in allowed_removed)]
print("marked:", marks, "unmarked:", unmarked, "removed:", removed)
sys.exit(0 if marks == list("123456") and not unmarked and not foreign and len(removed) == 4 else 1)
