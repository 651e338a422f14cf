"""The process's memory between two training steps, or two images."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks of up to 32 MiB for the next step instead of returning them to the system.

    A step on a CPU otherwise takes its activations anew from the system: some 9,000 page faults, 6 % of the CPU time of
    a step of the demo (docs/benchmarks.md). Preparing an image of KITTI takes 2,400, a fifth of its time. Call it
    before the first large array is made.

    Returns:
        Whether it took effect. It does nothing where the C library is not glibc.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, 2**31 - 1) and mallopt(_M_MMAP_THRESHOLD, 32 * 2**20))
