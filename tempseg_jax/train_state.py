"""What training moves and a checkpoint holds: two players and a step count."""

import flax.struct
import optax
from flax.training.dynamic_scale import DynamicScale
from jaxtyping import PyTree


class Player(flax.struct.PyTreeNode):
    """A network's parameters and all that training moves with them."""

    params: PyTree
    batch_stats: PyTree
    opt_state: PyTree
    loss_scale: DynamicScale | None  # with float16 alone

    @property
    def variables(self) -> dict[str, PyTree]:
        """What `Module.apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


class TrainState(flax.struct.PyTreeNode):
    """All that a checkpoint must hold for training to go on exactly."""

    step: PyTree  # Int[Array, ""]
    segmenter: Player
    discriminator: Player | None  # none with α = 0


def init_player(
    variables: dict[str, PyTree],
    optimizer: optax.GradientTransformation,
    *,
    loss_scale: DynamicScale | None,
) -> Player:
    """Start a player from its network's variables."""
    params = variables["params"]
    return Player(
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(params),
        loss_scale=loss_scale,
    )
