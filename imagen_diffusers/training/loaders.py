"""Batches of a training set for one process, from a step on."""

import atexit
import logging
import math
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from .exact_stream import ImageStream
from .examples import Batch, Example, Mixed, VisitedDataset, Visits, collate
from .order import BucketSampler, Share, StepSampler
from .run_settings import TrainSettings
from .seeds import seed_of
from .sharded_stream import Place, ShardedStream, beginning

logger = logging.getLogger(__name__)

TrainingSet = Dataset | ImageStream | ShardedStream


class Batches:
    """This process's batches, `share.accumulation` a step.

    What a step holds is a function of the step alone, but for a `ShardedStream`, whose place is part of a checkpoint.

    Args:
        dataset, share, settings: of the run.
        pinned: put them into memory that a GPU copies from while the program goes on.

    Raises:
        ValueError: for an empty set, and for more workers than an `ImageStream` can have.
    """

    def __init__(self, dataset: TrainingSet, share: Share, settings: TrainSettings, *, pinned: bool = False):
        self.dataset, self.share, self.settings, self.pinned = dataset, share, settings, pinned
        self._given, self._places, self._read = 0, list[Place](), dict[str, Any]()
        if isinstance(dataset, ShardedStream):
            self._read = {"files": dataset.files, "shuffle_buffer": dataset.shuffle_buffer, "train_batch_size": share.batch_size}
            self.dataset = dataset.part_of(share)
            self._workers = min(settings.dataloader_num_workers, self.dataset.files)
            self._places = [beginning() for _ in range(max(self._workers, 1))]

    def from_step(self, start: int) -> Iterator[Batch]:
        """Batches from step `start` on; of a `ShardedStream` from its place."""
        return self._from_place() if isinstance(self.dataset, ShardedStream) else iter(self._loader(start))

    def state_dict(self) -> dict[str, Any] | None:
        """The place in a `ShardedStream`; None for any other set."""
        if not isinstance(self.dataset, ShardedStream):
            return None
        return {"given": self._given, "places": list(self._places), **self._read, "data": self.dataset.columns.files}

    def load_state_dict(self, states: list[dict[str, Any] | None] | None) -> None:
        """Go to the place of a checkpoint.

        Args:
            states: what `state_dict` said in each process; None where a checkpoint says nothing.

        Raises:
            ValueError: where the data were read otherwise, by another number of processes or workers, or were others.
        """
        known = states is not None and all(state is not None for state in states)
        if known != bool(self._places):
            raise ValueError(
                "the run that wrote this checkpoint read its data otherwise: "
                + ("leave exact_stream out, and set streaming" if known else "set exact_stream, for a stream, or choose another output_dir")
            )
        if not known:
            return
        assert states is not None
        if len(states) != self.share.processes:
            raise ValueError(
                f"the stream was read by {len(states)} processes, and now there are {self.share.processes}; use as many, or begin with "
                "exact_stream, which goes on with any number"
            )
        state: Any = states[self.share.rank]
        if len(state["places"]) != len(self._places):
            raise ValueError(
                f"the stream was read by {len(state['places'])} workers, and now there are {len(self._places)}; set "
                f"dataloader_num_workers to {len(state['places'])}"
            )
        for name, here in self._read.items():
            there = state.get(name, here)  # older ones do not tell
            if there != here:
                raise ValueError(
                    f"the stream was read with {name}={there}, and now it is {here}: where the run was in it is not known then; go on with "
                    "what it was, or choose another output_dir"
                )
        data = self.dataset.columns.files if isinstance(self.dataset, ShardedStream) else None
        if not self.share.rank and state.get("data") not in (None, data):
            logger.warning(
                "the shards are others than those that the checkpoint's run read, by their names or sizes: the run goes on at the same "
                "place, and rows may come twice or not at all in this pass"
            )
        self._given = state["given"]
        self._places = [_place(place, self.share.batch_size) for place in state["places"]]

    def _from_place(self) -> Iterator[Batch]:
        assert isinstance(self.dataset, ShardedStream)
        stream = self.dataset.at(list(self._places), self._given % len(self._places))
        for given in DataLoader(stream, batch_size=None, collate_fn=_as_it_is, **self._reading(self._workers, self._given)):
            if given is None:
                continue
            worker, place, batch = given
            self._places[worker] = place
            self._given += 1
            yield batch

    def _reading(self, workers: int, start: int) -> dict[str, Any]:
        """What all loaders are told of their workers, whose global seeds depend on the run's and on where they start."""
        generator = torch.Generator().manual_seed(seed_of(self.settings.seed, start))
        apart = partial(_apart, ended=_ended()) if workers else None
        return {"num_workers": workers, "worker_init_fn": apart, "generator": generator, "pin_memory": self.pinned}

    def _loader(self, start: int) -> DataLoader:
        dataset, settings, share = self.dataset, self.settings, self.share
        given = {"collate_fn": collate, **self._reading(settings.dataloader_num_workers, start)}
        if isinstance(dataset, ImageStream):
            if settings.dataloader_num_workers > 1:
                raise ValueError("with exact_stream a stream is read by one worker: set dataloader_num_workers to 0 or 1")
            return DataLoader(dataset.at(share, start), batch_size=settings.train_batch_size, **given)
        buckets = dataset.buckets() if isinstance(dataset, VisitedDataset) else None
        order = {"seed": settings.seed, "start": start, "stop": settings.steps}
        if buckets is None:
            sampler = StepSampler(len(dataset), share, **order)  # pyright: ignore[reportArgumentType]
        else:
            sampler = BucketSampler(buckets, share, **order)
        return DataLoader(Visits(dataset), batch_sampler=sampler, **given)  # pyright: ignore[reportArgumentType]


def in_steps(settings: TrainSettings, dataset: TrainingSet, processes: int) -> TrainSettings:
    """The settings of a run, its length in steps: of a run that is counted in epochs as many as these take on so many processes.

    Raises:
        ValueError: for epochs of a stream.
    """
    if settings.num_train_epochs is None:
        return settings
    if isinstance(dataset, ImageStream | ShardedStream):
        raise ValueError(
            f"num_train_epochs is {settings.num_train_epochs}, and how many images a stream holds is known at its end: give "
            "max_train_steps in its place, or leave streaming out"
        )
    share = Share(settings.train_batch_size, processes, accumulation=settings.gradient_accumulation_steps)
    buckets = dataset.buckets() if isinstance(dataset, VisitedDataset) else None
    if buckets is None:
        steps = math.ceil(settings.num_train_epochs * len(dataset) / share.examples_per_step)  # pyright: ignore[reportArgumentType]
    else:
        steps = settings.num_train_epochs * BucketSampler(buckets, share, seed=0, start=0, stop=0).steps_per_pass
    return replace(settings, max_train_steps=max(steps, 1), num_train_epochs=None)


def first_usable(dataset: TrainingSet) -> list[Example]:
    """The first image that can be used; of two sets in one, of each.

    Raises:
        ValueError: where there is none.
    """
    if isinstance(dataset, ShardedStream):
        return [dataset.first_usable()]
    if isinstance(dataset, ImageStream):
        return [next(iter(dataset))]
    return [part[0] for part in (dataset.parts if isinstance(dataset, Mixed) else (dataset,))]


def _place(saved: dict[str, Any], batch_size: int) -> Place:
    """As a checkpoint has it; older ones say how many batches of the block were taken, and may lack `row`."""
    place = {**beginning(), **saved}
    taken = place.pop("taken", None)
    return Place(**(place if taken is None else {**place, "used": taken * batch_size}))


def _as_it_is(given: Any) -> Any:
    return given


@cache
def _ended() -> torch.Tensor:
    """A value that workers share: 1 as soon as this program comes to its end.

    Without a lock, which a worker that is killed could hold for ever.
    """
    ended = torch.zeros(1, dtype=torch.uint8).share_memory_()
    atexit.register(ended.fill_, 1)  # runs before multiprocessing's own, which was registered earlier
    return ended


def _apart(worker: int, ended: torch.Tensor) -> None:
    """Take a worker out of the run's process group, so that a signal to the group (Ctrl-C, torchrun's end) leaves it at work.

    The run ends the step first and then its workers. Those whose run is gone end by themselves: torch has them look for it. Slurm and
    systemd signal every process: the first SIGTERM is passed over, but for that of a run which comes to its end by an error:
    multiprocessing sends one, and waits.
    """
    if os.name != "nt":  # which has no groups of this kind
        os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def pass_over(number: int, frame: Any) -> None:
        signal.signal(number, signal.SIG_DFL)
        if ended.item():
            os._exit(0)  # torch takes a worker that ends by a signal for a fault, and says so in place of the error

    signal.signal(signal.SIGTERM, pass_over)
