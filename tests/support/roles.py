"""The roles that people and processes have in the database."""


def in_role(database_url: str, role: str) -> str:
    """Return the address of a database for who is to have the rights of a role, and no others."""
    return f"{database_url}{'&' if '?' in database_url else '?'}options=-c%20role%3D{role}"
