"""Settings shared by the configurations of all model families."""

from enum import Enum

LARGEST_SIZE = 65_536  # maximum of any dimension or layer count; a square float32 matrix of this size takes 17 GB


class TieEmbeddings(str, Enum):
    """Which embeddings share a weight: `all` source, target and output; `decoder` target and output; `none`."""

    all = "all"
    decoder = "decoder"
    none = "none"
