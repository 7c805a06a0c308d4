"""The training state that checkpoints hold: two players and the step."""

import flax.struct
import optax
from flax.training.dynamic_scale import DynamicScale
from jaxtyping import PyTree


class Player(flax.struct.PyTreeNode):
    """One network's parameters, running statistics and optimizer state."""

    params: PyTree
    batch_stats: PyTree
    opt_state: PyTree
    loss_scale: DynamicScale | None  # float16 only, else None

    @property
    def variables(self) -> dict[str, PyTree]:
        """The variables as `Module.apply` takes them."""
        return {"params": self.params, "batch_stats": self.batch_stats}


class TrainState(flax.struct.PyTreeNode):
    """All that a checkpoint must hold for training to resume exactly."""

    step: PyTree  # Int[Array, ""]
    segmenter: Player
    discriminator: Player | None  # None with α = 0


def init_player(
    variables: dict[str, PyTree],
    optimizer: optax.GradientTransformation,
    *,
    loss_scale: DynamicScale | None,
) -> Player:
    """Return a player with the initial variables of its network."""
    params = variables["params"]
    return Player(
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(params),
        loss_scale=loss_scale,
    )
