"""What is asked for: the typed schema, YAML files over it, and what sets two configs apart."""
