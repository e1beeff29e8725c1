"""What exists for speed: hand-written backward passes and fused kernels, behind functions that models call.

Beside each hand-written backward pass stands a `reference_*`, the same function in plain torch. It computes in float64,
where a kernel does not apply, and within `use_kernels(False)` (see `selection`).
"""
