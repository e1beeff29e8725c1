"""What the configurations of all families have in common."""

from enum import Enum

LARGEST_SIZE = 65_536  # of any dimension or number of layers; a square matrix of it has 17 GB


class TieEmbeddings(str, Enum):
    """Which tables are one: `all` source, target and output; `decoder` target and output; `none`."""

    all = "all"
    decoder = "decoder"
    none = "none"
