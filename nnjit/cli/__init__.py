"""The command line. In: arguments. Out: text or JSON on stdout, one line per error on stderr.

`main` knows the verbs by name only; each verb's file imports what it needs when it runs.
"""
