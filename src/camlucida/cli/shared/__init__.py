"""What several commands share: options, their grammar, the console, files."""
