"""What programs asked an engine and heard from it, kept in a file and played back.

Owns: the file's form, the client that writes one, the client that answers from one, and the
comparison of one with what an engine says today. Knows no program but by its name and arguments.
"""
