"""Data: sources (files to arrays), preparation (scaling, splits), checks, and batches for the
training loop.

Arrays come in, contiguous batches of the model's dtype go out. Nothing here knows about graphs or
devices.
"""

from nnjit.data import datasets
from nnjit.data.sources import Dataset, load_source

__all__ = ["Dataset", "datasets", "load_source"]
