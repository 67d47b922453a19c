"""From judgements to pairs: agreement, biases, strengths, views, and forms for people to fill in."""
