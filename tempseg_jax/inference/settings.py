"""Settings of sliding-window inference and of test-time augmentation."""

import dataclasses

from tempseg_jax.data.buckets import canvas

LARGEST_WHOLE = 2048 * 1024
"""Pixels of the largest canvas that runs whole if no window size is given."""

# Pixels: the window size and stride of larger images if no window size is given.
_DEFAULT_WINDOW, _DEFAULT_STRIDE = 1024, 768


@dataclasses.dataclass(frozen=True)
class InferenceSettings:
    """Settings of sliding-window inference and of test-time augmentation.

    Raises:
        ValueError: If a value is out of range.
    """

    window: int | None  # side in pixels; None: whole images, unless they are large
    stride: int | None  # pixels between windows; None: two thirds of the window
    scales: tuple[float, ...]  # of test-time augmentation; (1,) resizes nothing
    flip: bool  # test-time augmentation: also average over the mirror image

    def __post_init__(self) -> None:
        if self.window is not None and self.window < 32:
            raise ValueError(
                f"window: {self.window} pixels is less than the networks' stride of "
                "32; choose a larger window"
            )
        if self.stride is not None and self.window is None:
            raise ValueError(
                f"stride: {self.stride} is given without a window size; give both"
            )
        if self.stride is not None and not 0 < self.stride <= self.window:
            raise ValueError(
                f"stride: {self.stride} must be from 1 to the window size, "
                f"{self.window}; a larger stride leaves gaps between the windows"
            )
        if not self.scales or not all(0 < scale <= 8 for scale in self.scales):
            raise ValueError(
                f"scales: {self.scales} must be one or more factors above 0 and at "
                "most 8"
            )

    def windows(self, height: int, width: int) -> tuple[int, int] | None:
        """Return the window size and stride for an image of this size, in pixels.

        None means that the image runs whole. All images of one canvas have the same.
        """
        if self.window is not None:
            return self.window, self.stride or max(1, self.window * 2 // 3)
        canvas_height, canvas_width = canvas((height, width))
        if canvas_height * canvas_width > LARGEST_WHOLE:
            return _DEFAULT_WINDOW, _DEFAULT_STRIDE
        return None


DEFAULT_SETTINGS = InferenceSettings(
    window=None, stride=None, scales=(1.0,), flip=False
)
"""Whole images, unless they are large, without test-time augmentation.

The paper has no test-time augmentation either. Evaluation during training uses these.
"""


def parse_scales(words: list[str]) -> tuple[float, ...]:
    """Return the scales given on a command line.

    Raises:
        ValueError: If a word is not a number.
    """
    try:
        return tuple(float(word) for word in words)
    except ValueError:
        raise ValueError(
            f"scales: {','.join(words)!r} is not a list of numbers such as 0.75,1,1.25"
        ) from None
