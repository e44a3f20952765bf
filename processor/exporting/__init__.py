"""The log and the instance store as files for tools that know nothing of Holdfast."""
