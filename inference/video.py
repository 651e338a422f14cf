"""Videos that browsers play: H.264 in MP4, 8 bits, 4:2:0."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction

import av
import numpy as np
from path import Path

from files.atomic import atomic_path
from files.errors import InputError, WriteError
from files.untrusted import one_line

_QUALITY = "20"  # x264's constant rate factor: 0 lossless, 18 hardly to be told from the input
_BT709 = 1  # number of the colour space in FFmpeg


@contextmanager
def write_video(file: Path, fps: float) -> Iterator[Callable[[np.ndarray], None]]:
    """Give a function that adds a picture, uint8 [h, w, 3] of one even size, to a video.

    The video appears under its name when the block ends without an error, with its index at the beginning, so that
    it plays while it is loaded.

    Raises:
        WriteError: the file could not be written.
    """
    rate = Fraction(fps).limit_denominator(1001)
    try:
        with (
            atomic_path(file) as part,
            av.open(f"file:{part}", "w", format="mp4", options={"movflags": "+faststart"}) as container,
        ):
            stream = None

            def add(picture: np.ndarray) -> None:
                nonlocal stream
                if stream is None:
                    stream = _add_stream(container, rate, *picture.shape[:2])
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
                for packet in stream.encode(frame):
                    container.mux(packet)

            yield add
            if stream is None:
                raise InputError(f"{file}: no picture for the video")
            for packet in stream.encode():
                container.mux(packet)
    except av.FFmpegError as error:
        raise WriteError(f"{file}: could not be written ({one_line(error)})") from None


def _add_stream(container, rate: Fraction, height: int, width: int):
    stream = container.add_stream("libx264", rate=rate, options={"crf": _QUALITY, "preset": "fast"})
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    context = stream.codec_context
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    return stream
