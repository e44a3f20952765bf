"""Every contract that outlives a process: messages, values, identifiers, errors, settings."""
