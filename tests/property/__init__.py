"""Laws that hold for whatever Hypothesis can think of."""
