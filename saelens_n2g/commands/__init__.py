"""What the commands of the command line do. Each composes the package; `cli` only reads options."""
