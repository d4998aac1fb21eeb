"""What a person may write: read with line numbers, checked as a whole, watched for change.

`schema` holds the typed config, `load` reads a file into it, `watch` notices that the file has changed and
`changes` says what changed. Every fault is a `gateway.errors.ConfigProblem` with file, line, column and key.
"""
