"""A machine on which processes differ: what rounds of timed Cases look like on it, for tests and simulations.

The figures are those seen in published runs on two shared cores: the logarithm of a round's ratio has a standard
deviation of 8 %, calls of a round are alike (intraclass correlation 0.7), processes differ for as long as they live,
the one that was started first is slower, and some change between two speeds, each by itself.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Noise:
    """What moves times; all figures are of natural logarithms.

    Attributes:
        round_ratio: standard deviation of the log ratio of two Cases in a round.
        freedom: of Student's t for that; 0 for normal rounds.
        shared: standard deviation of what all Cases of a round share; from round to round it is correlated by 0.4.
        calls: intraclass correlation of a Case's calls in a round.
        lives: standard deviation of the log ratio of two processes for as long as they live.
        first: what the process that was started first is slower by.
        states: what the slower of a process's two states is slower by; 0 for one state.
        dwell: rounds that a process stays in a state, on average.
    """

    round_ratio: float = 0.08
    freedom: int = 0
    shared: float = 0.06
    calls: float = 0.7
    lives: float = 0.0
    first: float = 0.0
    states: float = 0.0
    dwell: float = 10.0

    def rounds(self, order: NDArray[np.int_], n_rounds: int, source: np.random.Generator) -> FloatArray:
        """Logarithms of two equal Cases' times in each round, ``(2, lives, n_rounds)``.

        Args:
            order: of each life +1 where the first Case was started first, else -1.
            n_rounds: of a life.
            source: of chance.
        """
        shape = (2, len(order), n_rounds)
        if self.freedom:
            own = source.standard_t(self.freedom, shape) * math.sqrt(1.0 - 2.0 / self.freedom)
        else:
            own = source.standard_normal(shape)
        of_process = source.normal(0.0, self.lives / math.sqrt(2.0), (2, len(order), 1))
        starts = np.maximum([order, -order], 0)[..., None] * self.first
        return (
            own * self.round_ratio / math.sqrt(2.0)
            + of_process
            + starts
            + self._states(shape, source)
            + self._shared(shape, source)
        )

    def call_times(self, rounds: FloatArray, n_calls: int, source: np.random.Generator) -> FloatArray:
        """Times of the calls of these rounds, in units of the undisturbed time, ``(..., n_calls)``."""
        of_rounds = self.round_ratio**2 / 2.0 + self.shared**2
        spread = math.sqrt(of_rounds * (1.0 - self.calls) / self.calls)
        return np.exp(rounds[..., None] + source.normal(0.0, spread, (*rounds.shape, n_calls)))

    def _states(self, shape: tuple[int, int, int], source: np.random.Generator) -> FloatArray:
        changes = source.random(shape) < 1.0 / self.dwell
        changes[..., 0] = source.random(shape[:2]) < 0.5
        return np.where(np.cumsum(changes, axis=-1) % 2, math.log1p(self.states), 0.0)

    def _shared(self, shape: tuple[int, int, int], source: np.random.Generator) -> FloatArray:
        shocks = source.normal(0.0, self.shared * math.sqrt(1.0 - 0.4**2), shape[1] * shape[2])
        shocks[0] /= math.sqrt(1.0 - 0.4**2)
        for place in range(1, len(shocks)):
            shocks[place] += 0.4 * shocks[place - 1]
        return shocks.reshape(shape[1:])


QUIET = Noise()  # processes do not differ
DIFFERING = Noise(lives=0.015, first=0.015)
TWO_STATES = Noise(states=0.24)
