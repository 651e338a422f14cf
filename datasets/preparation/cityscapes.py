"""Cityscapes' sequences as scenes of the prepared layout."""

from dataclasses import dataclass, field

import numpy as np
import torch
from path import Path

from datasets.formats.cityscapes import HEIGHT, WIDTH, Sequence, read_speed
from datasets.preparation.jobs import Plan, SceneJob, check_aspect
from files.errors import InputError
from files.images import read_image, resize_area
from geometry.camera import scale_intrinsics


@dataclass(frozen=True, kw_only=True)
class CityscapesScene(SceneJob):
    """The scene of every n-th frame of a sequence, without the bonnet; `static` is "none", "speed" or "images"."""

    sequence: Sequence = field(repr=False)
    camera: np.ndarray = field(repr=False)  # K of the full images, [3, 3]
    every: int  # n
    keep: float  # share of the height that is kept, from the top
    min_speed: float  # m/s, for "speed"

    def inputs(self) -> dict[str, dict[int, Path]]:
        return {"images": self.images, "vehicles": self.sequence.vehicle_files}

    def find_frames(self) -> Plan:
        static: set[int] = set()
        problems: dict[int, str] = {}
        for frame in self.images if self.static == "speed" else ():
            file = self.sequence.vehicle_files.get(frame)
            try:
                if file is None:
                    raise InputError(f"{self.sequence.name}: no vehicle file of frame {frame}")
                if abs(read_speed(file)) < self.min_speed:
                    static.add(frame)
            except InputError as error:
                problems[frame] = str(error)
        frames = [frame for frame in self.images if frame not in static and frame not in problems]
        return Plan(frames, static, problems)

    def make_image(self, frame: int) -> np.ndarray:
        image = read_image(self.images[frame])
        check_aspect(image, self.images[frame], HEIGHT, WIDTH)
        kept = max(1, round(self.kept_rows() * image.shape[0] / HEIGHT))
        return resize_area(image[:kept], self.height, self.width)

    def kept_rows(self) -> int:
        """The number of rows of the full image above the cut."""
        return round(self.keep * HEIGHT)

    def intrinsics(self) -> np.ndarray:
        # The rows that are cut off lie below the others: the crop leaves K as it is.
        return scale_intrinsics(
            torch.from_numpy(self.camera), self.width / WIDTH, self.height / self.kept_rows()
        ).numpy()

    def finish(self, plan: Plan, problems: dict[int, str]) -> None:
        """As for any scene, but where frames are missing, only the longest run without a gap is kept."""
        known = {frame for frame in plan.frames if self.image_file(frame).exists()} | plan.static
        runs: list[list[int]] = [[]]
        for frame in range(min(self.images), max(self.images) + 1, self.every):
            if frame in known:
                runs[-1].append(frame)
            else:
                problems.setdefault(frame, f"{self.sequence.name}: no image of frame {frame}")
                runs.append([])
        longest = max(runs, key=len)
        apart = sorted(known.difference(longest))
        self.remove(apart)
        for frame in apart:
            problems[frame] = f"{self.sequence.name}: frame {frame} is cut off by a missing or damaged one"
        super().finish(Plan([frame for frame in plan.frames if frame in longest], plan.static, {}), problems)
