"""From judgements to pairs: agreement, biases, strengths, judges and cards."""
