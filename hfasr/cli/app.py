"""The application that the verbs join."""

import logging

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.callback()
def _hfasr() -> None:
    """Train and use CTC speech recognisers. Training is `accelerate launch recipes/<name>.py`."""
    package = logging.getLogger("hfasr")
    package.setLevel(logging.INFO)
    if not package.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        package.addHandler(handler)
