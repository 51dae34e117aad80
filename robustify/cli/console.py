"""How commands speak on a console: letters that it lacks, warnings, and what the package logs."""

import logging
import sys
import warnings
from io import TextIOWrapper

from robustify.cli.options import in_words_of_the_command_line


class _Lines(logging.Handler):
    """Shows what the package logs as lines on stderr, above a bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one line."""
        from tqdm import tqdm

        tqdm.write(record.getMessage(), file=sys.stderr)


def set_up() -> None:
    """Makes warnings one line in words of the command line, shows what is logged, and replaces letters that lack."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # consoles of Windows may lack ℓ and σ
    # The place in the code says nothing to who typed a command.
    warnings.formatwarning = lambda message, *_, **__: f"warning: {in_words_of_the_command_line(str(message))}\n"
    log = logging.getLogger("robustify")
    log.setLevel(logging.INFO)
    log.handlers = [_Lines()]
    log.propagate = False  # libraries may give the root logger a handler, which would say it again
