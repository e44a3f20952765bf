"""The language that workflows are written in: what they await, and how they become programs."""
