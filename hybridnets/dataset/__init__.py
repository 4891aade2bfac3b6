"""Labelled driving data in upstream's layout: what a split holds, reading one sample, loading many. Torch-free."""

from hybridnets.dataset.layout import SampleFiles, Split, SplitFolders, find_image, open_split, split_folders
from hybridnets.dataset.loader import BrokenSample, SampleLoader
from hybridnets.dataset.reader import Sample, SampleReader

__all__ = [
    "BrokenSample",
    "Sample",
    "SampleFiles",
    "SampleLoader",
    "SampleReader",
    "Split",
    "SplitFolders",
    "find_image",
    "open_split",
    "split_folders",
]
