"""Regular expressions: pattern text (`parse`) to a tree (`tree`) to pushdown states (`lower`).

Owns: the two dialects we read, Python's `re` and JSON Schema's `pattern`, and the exact meaning of
anchors (`contexts`), counters and lookahead. Knows neither tokens nor how a machine is run.
"""
