"""`hfasr <verb>`: parse, call one public function, print. The verbs stand in the help in the order of the imports here."""

import gc
import sys

from hfasr.cli import align, corpus, evaluate, language_model, models, recognise  # noqa: F401 (each adds its verbs)
from hfasr.cli.app import app
from hfasr.errors import user_errors


def main() -> None:
    """Run the command line; a wrong value ends with one sentence and exit status 2."""
    # imports make a million objects that stay: looking through them again and again takes a seventh of a start
    gc.set_threshold(50_000)
    # recipes spell their flags with underscores, as Transformers does; here both spellings work
    arguments = []
    for word in sys.argv[1:]:
        name, equals, value = word.partition("=")
        arguments.append((name.replace("_", "-") if name.startswith("--") else name) + equals + value)
    with user_errors():
        app(arguments, prog_name="hfasr")
