"""What a host needs of the workers of any kind of cluster."""

from typing import Any

from mce_notebook.errors import HostError


class Workers:
    """The workers of one cluster; what is here fits those that are simply there.

    Attributes
    ----------
    pool : Pool
        Their slots.
    over : str
        Why the cluster has to end as soon as no sweep runs; empty while it has not.
    lost : str
        Why there will be none any more, and the host leaves; its sweeps are interrupted.
    """

    pool: Any
    over = ""
    lost: str = ""

    async def ready(self) -> None:
        """Wait until a task has run."""

    def told(self) -> dict[str, Any]:
        """Return what the host's heartbeat is to say of them."""
        return {}

    def paid(self) -> float:
        """Return how many cores are paid for now, whether they compute or not."""
        return 0.0

    def want(self, slots: int) -> None:
        """Say how many slots the sweeps of the host could use now."""

    def resize(self, least: int, most: int | None) -> None:
        """Keep so many slots without work, and have so many at most; None for what the profile says.

        Raises
        ------
        HostError
            If that cannot be chosen.
        """
        raise HostError("A local cluster has as many slots as its machine has cores; it cannot be resized.")

    async def close(self) -> None:
        """End them."""
