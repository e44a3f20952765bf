"""The soak: orders come all the time, and every few seconds something dies.

`python -m tests.faults.soak` runs it; in the end every order that was published has to be accounted for.
"""
