"""From a JSON schema to a pushdown machine of the JSON texts that validate against it.

Owns the meaning of every keyword (drafts 4 to 2020-12). In order: `document` finds subschemas and
references; `cases` turns a conjunction of subschemas, each wanted or unwanted, into alternatives of
plain constraints by type; `emit` makes the rules of each; `strings`, `numbers`, `arrays` and
`objects` those of one type; `evaluate` judges single values. What cannot be honoured exactly is
refused with its JSON pointer, never let pass. Knows no tokens.
"""
