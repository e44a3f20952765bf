"""The shape of the house, checked by machine."""
