"""What exists for speed: hand-written backward passes and fused kernels, behind functions that models call."""
