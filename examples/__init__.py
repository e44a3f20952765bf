"""Examples: each is an app, a publisher for it, and a page that says how to run it."""
