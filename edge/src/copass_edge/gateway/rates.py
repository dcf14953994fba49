"""How often a device may tap. Pure: the time is an argument."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Rate:
    """A bucket for each name: `burst` at once, then `per_second`. Names are those of the
    configuration, so there is an end to them."""

    per_second: float
    burst: int
    _left: dict[str, tuple[float, float]] = field(default_factory=dict)

    def allows(self, name: str, now_s: float) -> bool:
        """Takes one of the name's, if there is one. `now_s` never goes back."""
        left, at = self._left.get(name, (float(self.burst), now_s))
        left = min(self.burst, left + (now_s - at) * self.per_second)
        self._left[name] = (max(left - 1, 0.0) if left >= 1 else left, now_s)
        return left >= 1
