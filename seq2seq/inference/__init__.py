"""From text to text: generation, evaluation, explanations, and recovery from out-of-memory errors."""
