"""Stand-ins for the images of the compose files, made of Debian's packages, for machines that can pull none."""
