"""Names of the figures of one source in `metrics.jsonl`: these, and the source's name."""

LOSS_OF = "loss/"
BITS_PER_BYTE_OF = "bits_per_byte/"
