"""One state of the code of an experiment, and what changed between two of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Version:
    """The code a point runs and all it reaches, as one hash with a readable list beside it.

    Parameters
    ----------
    hash : str
        32 hexadecimal digits. Equal hashes mean the same outcomes, as far as the code decides them.
    dependencies : mapping of str to str
        A label people understand ("`soft_threshold`", "captured `A`") to the digest of that thing alone: a change
        of a function does not show in the functions that call it.
    packages : mapping of str to str
        Installed distributions the code reaches, with their versions. They are not part of `hash`.
    warnings : tuple of str
        What could not be followed: computed names, file reads, objects without a content.
    complete : bool
        False when something reached could not be hashed; it is then compared by its type alone.
    uses_global_rng : bool
        Whether anything reached draws, or may draw, from the global state of `random` or `numpy.random`.
    draws_globally : bool
        Whether code of the user's itself names what draws from it, or sets it; installed packages are not looked into.
    """

    hash: str
    dependencies: Mapping[str, str] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    complete: bool = True
    uses_global_rng: bool = False
    draws_globally: bool = False

    def to_json(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        return {
            "hash": self.hash,
            "dependencies": dict(self.dependencies),
            "packages": dict(self.packages),
            "warnings": list(self.warnings),
            "complete": self.complete,
            "uses_global_rng": self.uses_global_rng,
            "draws_globally": self.draws_globally,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Version":
        """Read back what `to_json` gave."""
        return cls(**{**record, "warnings": tuple(record["warnings"])})


def explain(old: Version, new: Version) -> list[str]:
    """Say what differs between two versions, one phrase each, changes before additions and removals.

    Phrases on packages end in "(environment)", because installed packages make no outcome stale.
    """
    before, after = old.dependencies, new.dependencies
    reasons = [f"{label} changed" for label in before if label in after and before[label] != after[label]]
    reasons += [f"{label} is new" for label in after if label not in before]
    reasons += [f"{label} is no longer used" for label in before if label not in after]
    if not reasons and old.hash != new.hash:
        reasons.append("the order or the sharing of captured objects changed")
    for name in sorted({*old.packages, *new.packages}):
        was, now = old.packages.get(name, "absent"), new.packages.get(name, "absent")
        if was != now:
            reasons.append(f"{name} {was} -> {now} (environment)")
    return reasons
