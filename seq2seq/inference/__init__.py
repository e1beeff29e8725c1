"""From texts to texts: generation, evaluation, explanations, and what happens when memory runs out."""
