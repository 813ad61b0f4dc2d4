"""The work of preparing a dataset, reusing what is already known."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence

from swin_umamba.common.files import resolved
from swin_umamba.data.datasets.dataset import Dataset
from swin_umamba.data.datasets.splits import Split
from swin_umamba.data.prepare.batch_size import gpu_memory, propose_batch_size
from swin_umamba.data.prepare.case_facts import CaseFacts, read_facts
from swin_umamba.data.prepare.digests import FileDigests
from swin_umamba.data.prepare.fingerprint import fingerprint_of
from swin_umamba.data.prepare.folds import labelled, trained_on
from swin_umamba.data.prepare.plan import Plan, make_plan
from swin_umamba.data.prepare.state import Choices, State, signature_of
from swin_umamba.errors import UserError

# Current phase, number of cases done, total.
OnProgress = Callable[[str, int, int], None]
CHECKING = "Checking"


def of_stage(what: str, on_progress: OnProgress | None) -> Callable[[int, int], None] | None:
    """Restrict a progress callback to one stage."""
    if on_progress is None:
        return None
    return lambda done, of: on_progress(what, done, of)


class Work:
    """Everything read from a dataset; read again only if a file has changed."""

    def __init__(
        self,
        dataset: Dataset,
        choices: Choices,
        state: State | None,
        threads: int,
        on_progress: OnProgress | None,
    ) -> None:
        self.dataset, self.choices = dataset, choices
        self.threads, self.on_progress = threads, on_progress
        self.signature = signature_of(dataset)
        self.digests = FileDigests(None if state is None else state.digests)
        fresh = state is not None and state.signature == self.signature
        self.known = state if fresh else None
        if self.known is not None:
            self._require_counts(self.known)
        self._facts: tuple[CaseFacts, ...] | None = None
        self._plans = dict(self.known.plans) if self.known else {}

    def _require_counts(self, state: State) -> None:
        numbers = len(self.dataset.values) + 1
        if set(state.counts) != set(labelled(self.dataset)) or any(
            len(found) != numbers or min(found) < 0 for found in state.counts.values()
        ):
            raise UserError(
                f"the cached state of {self.dataset.folder} is damaged: swin-umamba prepare --clean"
                " starts over"
            )

    def counts(self) -> dict[str, tuple[int, ...]]:
        """For each labeled case: the number of ignored pixels, then of pixels of each class."""
        if self.known is not None:
            return dict(self.known.counts)
        return {
            case.name: (case.ignored, *case.pixels)
            for case in self.facts()
            if case.pixels is not None
        }

    def facts(self) -> tuple[CaseFacts, ...]:
        if self._facts is None:
            self._facts = read_facts(
                self.dataset,
                [case for case in self.dataset.cases if case.mask is not None],
                threads=self.threads,
                on_progress=of_stage(CHECKING, self.on_progress),
            )
        return self._facts

    def plan(self, splits: Sequence[Split]) -> Plan:
        names = trained_on(self.dataset, splits)
        asked = json.dumps([dataclasses.asdict(self._planning()), names], sort_keys=True)
        key = hashlib.blake2b(asked.encode(), digest_size=10).hexdigest()
        plan = self._kept_plan(key) if key in self._plans else self._made_plan(names)
        self._plans[key] = json.loads(plan.to_json())
        # The GPU of the training machine, wherever the rest was decided.
        memory = gpu_memory() if self.memory is None else self.memory
        proposed = propose_batch_size(plan.patch_size, self.pixels(splits), memory)
        return dataclasses.replace(plan, batch_size=proposed)

    @property
    def memory(self) -> int | None:
        """Bytes of the GPU chosen for planning; None for this machine's."""
        gigabytes = self.choices.gpu_memory
        return None if gigabytes is None else int(gigabytes * 1e9)

    def pixels(self, splits: Sequence[Split]) -> int:
        """Total pixels of the cases that at least one fold trains on."""
        counts = self.counts()
        return sum(sum(counts[name]) for name in trained_on(self.dataset, splits))

    def _made_plan(self, names: Sequence[str]) -> Plan:
        facts = [case for case in self.facts() if case.name in set(names)]
        return make_plan(
            self.dataset,
            fingerprint=fingerprint_of(facts, self.dataset),
            axis=self.choices.axis,
            patch_size=self.choices.patch_size,
        )

    def _kept_plan(self, key: str) -> Plan:
        try:
            return Plan.from_values(self._plans[key])
        except ValueError as error:
            raise UserError(
                f"the cached plan of {self.dataset.folder} is damaged ({error}): swin-umamba"
                " prepare --clean starts over"
            ) from error

    def _planning(self) -> Choices:
        """The choices that a plan depends on, besides training cases and machine."""
        return Choices(patch_size=self.choices.patch_size, axis=self.choices.axis)

    def state(self, choices: Choices) -> State:
        return State(
            dataset=str(resolved(self.dataset.folder)),
            signature=self.signature,
            choices=choices,
            plans=self._plans,
            counts=self.counts(),
            digests=self.digests.known,
        )
