"""Tables of aligned columns for the terminal."""

from typing import TYPE_CHECKING

from files.errors import InputError

if TYPE_CHECKING:  # the check needs SciPy and OpenCV, tables need neither
    from datasets.preparation.check import DataCheck

MOST_ROWS = 100  # of a table of scenes


def table(rows: list[dict[str, str]]) -> str:
    """Rows with the same keys as text: the keys as headings, the first column to the left, the others to the right."""
    headings = list(rows[0])
    widths = [max(len(heading), *(len(row[heading]) for row in rows)) for heading in headings]
    lines = []
    for row in [dict(zip(headings, headings, strict=True)), *rows]:
        first, *others = (row[heading] for heading in headings)
        cells = [first.ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def report_data_check(check: "DataCheck") -> None:
    """Print a table of the scenes and the warnings; InputError with the reasons if the data set is refused.

    Of more than `MOST_ROWS` scenes the first are shown that have remarks, then the first of the others.
    """
    rows = sorted((scene.row() for scene in check.scenes), key=lambda row: not row["remarks"])
    if len(rows) <= MOST_ROWS:
        rows = [scene.row() for scene in check.scenes]
    print(table(rows[:MOST_ROWS]))
    if len(rows) > MOST_ROWS:
        print(f"... and {len(rows) - MOST_ROWS} more scenes (check_data.py --json FILE has all)")
    frames = sum(scene.frames for scene in check.scenes)
    print(f"{frames} frames in {len(check.scenes)} scenes; {check.pairs} pairs of neighbouring frames compared")
    for note in check.notes:
        print(note)
    for warning in check.warnings:
        print(f"WARNING: {warning}")
    if check.refusals:
        raise InputError(f"the data set is refused: {'; also: '.join(check.refusals)}")
