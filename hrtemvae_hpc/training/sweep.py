"""A sweep over the number of latents: one training after the other, the same but for that number."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.ranks.guard import StopRequest
from hrtemvae_hpc.ranks.progress import say
from hrtemvae_hpc.ranks.world import World
from hrtemvae_hpc.schemas import reason
from hrtemvae_hpc.training.job import try_to_train
from hrtemvae_hpc.training.promotion import NothingLearned
from hrtemvae_hpc.training.train_config import TrainConfig


@dataclass(frozen=True)
class Member:
    """One training of a sweep."""

    config: TrainConfig
    output: Path  # its model file

    @property
    def latents(self) -> int:
        return self.config.network.latents


def members_of(config: TrainConfig, numbers: Sequence[int], output: Path) -> list[Member]:
    """The trainings of ``config`` with each of the ``numbers`` of latents; with 8, mine.st becomes mine-latents8.st.

    Raises InputError if a number is given twice, or no network can have it.
    """
    for number in numbers:
        if numbers.count(number) > 1:
            raise InputError(f"--sweep-latents: {number} is given twice; name each number of latents once.")
    return [
        Member(_with_latents(config, n), output.with_name(f"{output.stem}-latents{n}{output.suffix}")) for n in numbers
    ]


def _with_latents(config: TrainConfig, latents: int) -> TrainConfig:
    values = config.model_dump()
    values["network"]["latents"] = latents
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        raise InputError(f"--sweep-latents: {reason(error)}.") from error


def sweep(
    world: World,
    members: Sequence[Member],
    restart: bool,
    stop: StopRequest,
    on_end: Callable[[Member, str], None],
) -> None:
    """Train all ``members``, each as ``train`` does; those that are done are not trained again, unless ``restart``.

    Whenever one has ended, rank 0 calls ``on_end`` with it and, if its network has learned nothing, the sentence that
    says so. Raises what ``train`` raises, but NothingLearned only if no network has learned anything.
    """
    refusals = []
    for number, member in enumerate(members, 1):
        if world.is_root:
            say(f"training {number} of {len(members)}, latents: {member.latents}, model: {member.output}")
        refusals.append(try_to_train(world, member.config, member.output, None, restart, stop))

        def end(member: Member = member, refusal: str = refusals[-1]) -> None:
            if refusal:
                say(f"latents: {member.latents}; {refusal}")
            on_end(member, refusal)

        world.on_root(end, patience=float("inf"))
    if all(refusals):
        world.raise_once(
            NothingLearned("no network of this sweep has learned anything; train for more epochs, or lower loss.beta.")
        )
