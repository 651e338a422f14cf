"""Reading video files through PyAV (FFmpeg): frames by their time, as a player shows them.

A frame is turned by the file's display matrix (a phone's rotation tag) and stretched to square pixels. It is 8-bit RGB
whatever the file has: grey becomes three equal channels, 10 bits become 8, transparency is dropped. HDR is mapped to
the range of an ordinary picture (`datasets.formats.hdr`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
import numpy as np
from path import Path

from datasets.formats.hdr import TRANSFERS, tone_mapped
from files.errors import InputError
from files.images import resize_area
from files.untrusted import MOST_PIXELS, check_pixels, one_line

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp",
    ".ogv", ".gif",
)  # fmt: skip
_GAP = 2.5  # intervals: a longer time without a frame is a gap
_JUMP_BACK = 0.5  # seconds: time stamps that jump back by more begin anew, those that jump less are out of order
_CUT_SHORT = (1.0, 0.02)  # seconds, and share of the length: a file that ends earlier than it claims is cut


@dataclass(frozen=True)
class Video:
    """What a video file says of itself."""

    file: Path
    width: int  # of the frames as a player shows them
    height: int
    rate: float | None  # frames per second, on average
    seconds: float | None  # length
    codec: str
    stored: tuple[int, int]  # (width, height) of the frames in the file
    matrix: tuple[int, int, int, int]  # (a, b, c, d) of the display matrix, see `_turn`
    notes: tuple[str, ...] = ()  # what a user should know: HDR, interlaced, no time stamps
    transfer: str | None = None  # of HDR: "PQ" or "HLG"

    def __str__(self) -> str:
        rate = "" if self.rate is None else f", {self.rate:.4g} frames/s"
        length = "" if self.seconds is None else f", {self.seconds:.1f} s"
        return f"{self.width} x {self.height}{rate}{length}, {self.codec}"


@dataclass(frozen=True)
class VideoFrame:
    """A decoded frame; `image` converts it, which threads may do."""

    number: int  # of its tick: number / fps is its time from the video's beginning, approximately
    time: float  # seconds from the first frame
    after_gap: bool  # more time has passed since the frame before than usual: it is no neighbour
    video: Video
    _picture: Any = field(repr=False)
    pose: None = None  # a video has none

    def image(self) -> np.ndarray:
        """The frame as a player shows it: uint8 [height, width, 3]."""
        if self.video.transfer is None:
            stored = self._picture.to_ndarray(format="rgb24")
        else:
            stored = tone_mapped(self._picture.to_ndarray(format="rgb48le"), self.video.transfer)
        shown = np.ascontiguousarray(_turn(stored, self.video.matrix))
        return resize_area(shown, self.video.height, self.video.width)


@dataclass
class Reading:
    """What happened while a video was read."""

    decoded: int = 0  # frames
    seconds: float = 0.0  # time of the last frame, from the first
    problems: list[str] = field(default_factory=list)  # damage, each with its time; at most `most_problems`
    damaged: int = 0  # packets or frames that could not be decoded
    most_problems: int = 20

    def add(self, text: str) -> None:
        if len(self.problems) < self.most_problems:
            self.problems.append(text)


def open_video(file: Path) -> Video:
    """What a video file says of itself, from its header and its first frame.

    Raises:
        InputError: missing, damaged from the start, no video stream, or frames of more than
            `files.untrusted.MOST_PIXELS`.
    """
    file = Path(file)
    with _open(file) as container:
        stream = _video_stream(container, file)
        reading = Reading()
        picture = next(_pictures(container, stream, reading), None)
        if picture is None:
            why = f" ({reading.problems[0]})" if reading.problems else ""
            raise InputError(f"{file}: not one frame can be decoded{why}")
        matrix = _display_matrix(picture)
        width, height = _shown_size(picture, stream, matrix)
        rate = stream.average_rate or stream.guessed_rate
        seconds = _length(container, stream)
        notes = []
        transfer = TRANSFERS.get(int(picture.color_trc or 0))
        if transfer:
            notes.append(f"HDR ({transfer}): its highlights are compressed into the range of an ordinary picture")
        if picture.interlaced_frame:
            notes.append("interlaced: moving edges are combs; deinterlace it first (ffmpeg -vf bwdif)")
        if picture.time is None:
            notes.append(f"it has no time stamps: {float(rate or 25):g} frames/s are assumed")
        codec = f"{stream.codec_context.name} {picture.format.name}"
        stored = picture.width, picture.height
        return Video(
            file, width, height, float(rate) if rate else None, seconds, codec, stored, matrix, tuple(notes), transfer
        )


def read_video(video: Video, fps: float, reading: Reading | None = None, threads: int = 0) -> Iterator[VideoFrame]:
    """The frames nearest to each tick of a clock of `fps` ticks per second, each frame at most once.

    Of a video with fewer frames per second, every frame is taken. Memory does not grow with the length. After damage,
    frames are left out until the next one that does not depend on others.

    Args:
        reading: filled in while frames are read.
        threads: of the decoder; 0: one per core.
    """
    reading = Reading() if reading is None else reading
    interval = max(1 / fps, 1 / video.rate if video.rate else 0)
    with _open(video.file) as container:
        stream = _video_stream(container, video.file)
        stream.codec_context.thread_type = "AUTO"
        stream.codec_context.thread_count = threads
        before: float | None = None  # time of the last frame that was taken
        for number, time, picture in nearest_to_ticks(_timed(container, stream, reading), fps):
            if (picture.width, picture.height) != video.stored:
                sizes = f"{picture.width} x {picture.height} pixels, the first has {' x '.join(map(str, video.stored))}"
                reading.damaged += 1
                reading.add(f"at {time:.2f} s: a frame of {sizes}")
                continue
            gap = before is not None and time - before > _GAP * interval
            yield VideoFrame(number, time, gap, video, picture)
            before = time
        if video.seconds is not None:
            missing = video.seconds - reading.seconds - interval
            if missing > max(_CUT_SHORT[0], _CUT_SHORT[1] * video.seconds):
                reading.add(f"ends at {reading.seconds:.1f} s of {video.seconds:.1f} s: the file is cut or damaged")


def nearest_to_ticks(timed: Iterator[tuple[float, Any]], fps: float) -> Iterator[tuple[int, float, Any]]:
    """For each tick of a clock the item nearest to it in time: (tick, time, item), ascending.

    An item belongs to the tick nearest to it, so that none is taken twice. Ticks without an item are left out.

    Args:
        timed: (seconds, item), ascending.
        fps: ticks per second; tick 0 is at 0 s.
    """
    best: tuple[int, float, Any] | None = None
    for time, item in timed:
        tick = int(np.floor(time * fps + 0.5 - 1e-6))
        if best is not None and tick != best[0]:
            yield best
            best = None
        if best is None or abs(time - tick / fps) < abs(best[1] - tick / fps) - 1e-6:
            best = tick, time, item
    if best is not None:
        yield best


def _open(file: Path) -> Any:
    if not file.is_file():
        raise InputError(f"{file}: {'a folder, expected a video file' if file.is_dir() else 'no such file'}")
    try:  # files alone: a playlist must not make the reader go to the net
        return av.open(f"file:{file}", options={"protocol_whitelist": "file"}, metadata_errors="replace")
    except (av.FFmpegError, ValueError) as error:
        with open(file, "rb") as stream:
            is_mp4 = stream.read(8)[4:] == b"ftyp"
        hint = "; an MP4 that was cut off has lost its index: copy it again, or repair it by untrunc" if is_mp4 else ""
        raise InputError(f"{file}: no video that can be read ({_reason(error)}){hint}") from None


def _reason(error: Exception) -> str:
    return one_line(ValueError(getattr(error, "strerror", None) or str(error)))


def _video_stream(container: Any, file: Path) -> Any:
    """The video stream with the largest frames. Pictures on the cover of an audio file are no video."""
    found = [stream for stream in container.streams.video if not _is_cover(stream)]
    if not found:
        kinds = sorted({stream.type for stream in container.streams if stream not in container.streams.video})
        only = f", only {', '.join(kinds)}" if kinds else ""
        raise InputError(f"{file}: no video stream{only}")
    found = [stream for stream in found if stream.codec_context is not None]
    if not found:
        raise InputError(f"{file}: its video is coded in a way that FFmpeg does not know; convert it, e.g. to H.264")
    stream = max(found, key=lambda stream: stream.codec_context.width * stream.codec_context.height)
    context = stream.codec_context
    try:
        check_pixels(context.width, context.height)
    except ValueError as error:
        raise InputError(f"{file}: {error}") from None
    context.options = {"max_pixels": str(MOST_PIXELS)}  # a frame may claim another size than the header
    return stream


def _is_cover(stream: Any) -> bool:
    return bool(stream.disposition & stream.disposition.attached_pic)


def _length(container: Any, stream: Any) -> float | None:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return None if container.duration is None else container.duration / av.time_base


def _timed(container: Any, stream: Any, reading: Reading) -> Iterator[tuple[float, Any]]:
    """(seconds from the first frame, frame), ascending. Frames out of order are left out."""
    interval = float(1 / (stream.average_rate or stream.guessed_rate or Fraction(25)))
    offset: float | None = None
    last = -interval
    for picture in _pictures(container, stream, reading):
        reading.decoded += 1
        stamp = picture.time
        if stamp is None:
            time = last + interval
        else:
            if offset is None or stamp - offset < last - _JUMP_BACK:
                offset = stamp - last - interval
            time = stamp - offset
        if time <= last:
            continue
        last = reading.seconds = time
        yield time, picture


def _pictures(container: Any, stream: Any, reading: Reading) -> Iterator[Any]:
    """The decoded frames that are whole, in order of display."""
    packets = container.demux(stream)
    whole = True
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.FFmpegError as error:
            reading.damaged += 1
            reading.add(f"after {reading.seconds:.2f} s: {_reason(error)}")
            return
        try:
            pictures = packet.decode()
        except av.FFmpegError as error:
            reading.damaged += 1
            reading.add(f"after {reading.seconds:.2f} s: {_reason(error)}")
            whole = False
            continue
        for picture in pictures:
            if picture.is_corrupt:
                reading.damaged += 1
                reading.add(f"after {reading.seconds:.2f} s: a damaged frame")
                whole = False
            whole = whole or (picture.key_frame and not picture.is_corrupt)
            if whole:
                yield picture


def _display_matrix(picture: Any) -> tuple[int, int, int, int]:
    """(a, b, c, d) of the file's display matrix: a stored pixel (x, y) is shown at (a x + c y, b x + d y).

    It is read from one frame: PyAV's side data take some kilobytes for each frame that are not freed.
    """
    data = picture.side_data.get("DISPLAYMATRIX")
    if data is None:
        return 1, 0, 0, 1
    matrix = np.frombuffer(data, dtype=np.int32, count=9)
    return int(matrix[0]), int(matrix[1]), int(matrix[3]), int(matrix[4])


def _turn(image: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """The image [H, W, 3] turned and mirrored by the quarter turn that is nearest to the display matrix."""
    a, b, c, d = matrix
    if abs(b) + abs(c) > abs(a) + abs(d):
        image = image.swapaxes(0, 1)
        a, d = c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def _shown_size(picture: Any, stream: Any, matrix: tuple[int, int, int, int]) -> tuple[int, int]:
    """(width, height) of a frame as a player shows it: with square pixels, turned."""
    a, b, c, d = matrix
    aspect = stream.sample_aspect_ratio or Fraction(1)
    width = max(1, round(picture.width * aspect)) if Fraction(1, 8) < aspect < 8 else picture.width
    return (picture.height, width) if abs(b) + abs(c) > abs(a) + abs(d) else (width, picture.height)
