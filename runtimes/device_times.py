"""How long one inference took on a GPU, by the device's own clock."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DeviceTimes"]


@dataclass(frozen=True)
class DeviceTimes:
    """One inference on the device, in ms. Zero-copy buffers have no copies to time."""

    upload: float
    compute: float
    download: float

    @property
    def total(self) -> float:
        """All three."""
        return self.upload + self.compute + self.download
