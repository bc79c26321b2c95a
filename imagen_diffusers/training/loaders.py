"""Batches of a training set from a step on, for one process."""

from torch.utils.data import DataLoader, Dataset

from .data import VisitedDataset, Visits, collate
from .datasets import PictureStream
from .sampling import BucketSampler, Share, StepSampler
from .settings import TrainSettings


def make_loader(dataset: Dataset | PictureStream, share: Share, settings: TrainSettings, start: int) -> DataLoader:
    """This process's batches, `share.accumulation` a step, from step `start` on.

    Raises:
        ValueError: for an empty set, and for more workers than a stream can have.
    """
    given = {"collate_fn": collate, "num_workers": settings.dataloader_num_workers}
    if isinstance(dataset, PictureStream):
        if settings.dataloader_num_workers > 1:
            raise ValueError("a stream is read by one worker: set dataloader_num_workers to 0 or 1")
        return DataLoader(dataset.at(share, start), batch_size=settings.train_batch_size, **given)
    buckets = dataset.buckets() if isinstance(dataset, VisitedDataset) else None
    order = {"seed": settings.seed, "start": start, "stop": settings.max_train_steps}
    if buckets is None:
        sampler = StepSampler(len(dataset), share, **order)  # pyright: ignore[reportArgumentType]
    else:
        sampler = BucketSampler(buckets, share, **order)
    return DataLoader(Visits(dataset), batch_sampler=sampler, **given)
