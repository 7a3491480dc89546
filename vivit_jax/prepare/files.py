"""Files that are either whole or not there."""

import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path


def replace_file(path: Path, text: str):
    """Writes a file under another name first, so that no reader ever sees a part of it."""
    unfinished = path.with_name(f'.{path.name}.unfinished')
    unfinished.write_text(text, encoding='utf-8')
    os.replace(unfinished, path)


def csv_text(header: Sequence[str], rows: Iterable[Sequence]) -> str:
    """A CSV; None becomes an empty field."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
