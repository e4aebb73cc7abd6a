"""The story of a pack: adapters of several trials onto one resident backbone, train together, score, save, measure.

Each trial ends by itself: it may reach its rung, diverge, fail, or be given up, and its answer is given at once, while
the others go on. What cannot be packed never comes here (``autopeft.admission``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from autopeft.adapters.places import placed
from autopeft.errors import AutopeftError
from autopeft.measurement import TRUNCATION
from autopeft.objectives import exact
from autopeft.study import EXECUTION, Checkpoint, Measurement, Order
from search_spaces.cost import frozen_layer_count
from workers.answers import AnswerRows
from workers.backbones import Resident
from workers.batches import Rows, TaskRows, scoring_batches
from workers.checkpoints import write_checkpoint
from workers.evaluate import artifact_of, save
from workers.importance import hold_out
from workers.pack.member import Member
from workers.pack.pack import Pack, Watch, nobody_leaves
from workers.scoring import SCORING_BATCH, Scored, said_of, score_rows, scored
from workers.stopping import Preempted
from workers.training import memory_errors

PACK = "pack"
"""Name, in what a measurement's details say of the execution, of how many trials were trained together."""

Answer = Measurement | Exception
Tell = Callable[[Order, Answer], None]
"""Called once for each order: with what was measured, or why nothing was."""


def evaluate_pack(
    orders: Sequence[Order], resident: Resident, artifacts: Path, tell: Tell, watch: Watch = nobody_leaves
) -> None:
    """Trains ``orders`` together to their rungs and tells what came of each; the backbone is left as it was found.

    All of them rest on the states that enter the lowest layer that any of them trains. Trials that go on from
    different steps are trained one group after the other. The seconds of training of a trial are those of building its
    own adapters and an even share of the wall seconds of every step that it was there for, so the shares of a pack add
    up to what it took; those of scoring are shared in the same way. There is no peak memory of one trial.

    Args:
        orders: Of one study and replicate, each of which ``why_alone`` says nothing of.
        resident: Of their study.
        artifacts: Root folder of artifacts.
        tell: Told of each order as soon as it has ended.
        watch: Asked after every step who is to leave.

    Raises:
        OutOfMemoryError: If there is not enough for all of them; who has not been told of can be trained alone.
        EvaluationError: If they cannot be trained together.
    """
    Evaluation(resident, artifacts, tell, watch).run(orders)


class Evaluation:
    """One evaluation of a pack. Arguments: ``evaluate_pack``."""

    def __init__(self, resident: Resident, artifacts: Path, tell: Tell, watch: Watch) -> None:
        self._resident, self._artifacts, self._tell, self._watch = resident, artifacts, tell, watch
        self._count = 0

    def run(self, orders: Sequence[Order]) -> None:
        """As ``evaluate_pack``."""
        first = orders[0]
        layer = min(frozen_layer_count(order.configuration) for order in orders)
        with memory_errors():
            try:
                self._resident = self._resident.beginning_at(layer, lambda _: self._require_some(orders))
            except Preempted:
                asked = self._watch(0)
                for order in orders:
                    self._tell(order, Preempted("the trial was given up", keep=asked.get(order.key, False)))
                return
            study, train = first.study, self._resident.train
            rows = hold_out(len(train), None, study.seed).order(
                train.lengths, study.fidelity, study.seed, first.replicate
            )
            for members in self._groups(orders, rows):
                self._count = len(members)
                self._train(Pack(self._resident.classifier, train, rows, members))

    def _require_some(self, orders: Sequence[Order]) -> None:
        if {order.key for order in orders} <= set(self._watch(0)):
            raise Preempted("every trial was given up")

    def _groups(self, orders: Sequence[Order], rows: Rows) -> Iterator[list[Member]]:
        """The members that can be had, those that begin at the same step together."""
        found: dict[int, list[Member]] = {}
        for order in orders:
            try:
                member = Member.enrol(order, self._resident.classifier, self._artifacts, rows)
            except AutopeftError as error:
                self._tell(order, error)
            else:
                found.setdefault(member.from_step, []).append(member)
        yield from found.values()

    def _train(self, pack: Pack) -> None:
        while pack.members:
            leaving = pack.run(min(member.until for member in pack.members), self._watch)
            if leaving:
                left = pack.take(list(leaving))
                for row, error in enumerate(leaving.values()):
                    self._tell_of_leaving(left, row, error)
            ended = [row for row, member in enumerate(pack.members) if member.until <= pack.step]
            if ended:
                self._finish(pack.take(ended))

    def _tell_of_leaving(self, pack: Pack, row: int, error: Exception) -> None:
        if isinstance(error, Preempted) and error.keep and pack.step:
            order = pack.members[row].order
            try:
                error.checkpoint = Checkpoint(order.rung, *self._write(pack, row, below_top=True))
            except OSError:
                error.checkpoint = None  # no room: the steps are lost, the trial is not
        self._tell(pack.members[row].order, error)

    def _finish(self, pack: Pack) -> None:
        """Scores members that have reached their rungs, and tells of each."""
        started = time.perf_counter()
        found = self._scores(pack)
        seconds = (time.perf_counter() - started) / len(pack.members)
        asked = self._watch(0)
        for row, (member, score) in enumerate(zip(pack.members, found, strict=True)):
            if member.key in asked:
                gone = Preempted("the trial was given up", keep=asked[member.key])
                self._tell_of_leaving(pack, row, gone)
            elif isinstance(score, Exception):
                self._tell(member.order, score)
            else:
                try:
                    self._tell(member.order, self._measured(pack, row, score, seconds))
                except Exception as error:
                    self._tell(member.order, error)

    def _scores(self, pack: Pack) -> list[Scored | Exception]:
        """The score of each member, or why it has none."""
        rows, metric = self._resident.validation, pack.members[0].order.study.metric
        if not isinstance(rows, AnswerRows):
            return score_pack(pack, rows, metric, self._watch)
        return [self._score_alone(member, rows, metric) for member in pack.members]

    def _score_alone(self, member: Member, rows: TaskRows, metric: str) -> Scored | Exception:
        def stay(_steps: int) -> None:
            if member.key in self._watch(0):
                raise Preempted("the trial was given up")

        with member.standing_in(self._resident.classifier):
            try:
                return score_rows(self._resident.classifier, rows, metric, stay)
            except (AutopeftError, Preempted) as error:
                return error

    def _measured(self, pack: Pack, row: int, score: Scored, seconds: float) -> Measurement:
        member = pack.members[row]
        order, study = member.order, member.order.study
        values = {
            study.metric: score.value,
            **score.losses(self._resident.task.kind),
            **(order.costs or {name: figure(order.configuration) for name, figure in exact(study).items()}),
            "train_seconds": member.seconds,
            "evaluate_seconds": seconds,
        }
        execution = {**self._resident.begun, "threads": torch.get_num_threads(), PACK: self._count}
        details: dict[str, Any] = {"training": {"from_step": member.from_step}} if member.from_step else {}
        details[EXECUTION] = execution
        details |= {TRUNCATION: cut} if (cut := self._resident.truncation) else {}
        path, sha256 = self._write(pack, row, below_top=order.rung < study.fidelity.top)
        return Measurement(order.rung, values, tuple(member.curve), score.correct, path, sha256, details)

    def _write(self, pack: Pack, row: int, *, below_top: bool) -> tuple[str, str]:
        """Path and hash of the member's files: a checkpoint to go on from, or what it has trained."""
        member, classifier = pack.members[row], self._resident.classifier
        folder = artifact_of(member.order)
        with member.standing_in(classifier):
            if below_top:
                sha256 = write_checkpoint(classifier, pack.state(row), self._artifacts / folder)
            else:
                sha256 = save(classifier, self._artifacts / folder)
        return folder.as_posix(), sha256


@torch.inference_mode()
def score_pack(pack: Pack, rows: TaskRows, metric: str, watch: Watch = nobody_leaves) -> list[Scored | Exception]:
    """The score of each member on ``rows``, all of them in the same passes; why it has none, if its loss is not finite.

    Args:
        pack: Its members.
        rows: Of a task with labels.
        metric: Of the study.
        watch: Asked after every batch; who is to leave is the caller's to see to.
    """
    count = len(pack.members)
    outputs, losses = torch.zeros(count, len(rows)), torch.zeros(count, len(rows))
    with placed(pack.classifier, [member.lifted for member in pack.members], pack.arena.leaf):
        for chosen in scoring_batches(rows.lengths, SCORING_BATCH):
            inputs, labels = rows.batch(chosen, pack.device)
            said, lost = said_of(pack.logits(inputs), labels.repeat(count))
            where = torch.from_numpy(chosen)
            outputs[:, where], losses[:, where] = said.view(count, -1), lost.view(count, -1)
            watch(0)
    found: list[Scored | Exception] = []
    for said, lost in zip(outputs, losses, strict=True):
        try:
            found.append(scored(said, lost, rows, metric))
        except AutopeftError as error:
            found.append(error)
    return found
