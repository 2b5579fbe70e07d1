"""What a program says, without a model: its graph, and what can be known of it before it runs."""
