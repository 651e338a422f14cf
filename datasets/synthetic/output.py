"""Writing the files of a world, with the folders that they need."""

from path import Path

from files import atomic


def write_bytes(file: Path, content: bytes) -> None:
    """Write a file, and make its folders; InputError with the file's name if that fails."""
    file.parent.makedirs_p()
    atomic.write_bytes(file, content)


def write_text(file: Path, text: str) -> None:
    """Write a text file, and make its folders, unless it has this text already."""
    if not file.exists() or file.read_text() != text:
        file.parent.makedirs_p()
        atomic.write_text(file, text)
