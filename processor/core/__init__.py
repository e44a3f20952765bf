"""The interpreter: runs programs, asks for what it cannot do itself, and takes the answers."""
