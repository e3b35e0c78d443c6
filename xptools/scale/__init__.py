"""A pipe over many files, in many processes, on many machines: units of work, their records, who does them.

Light at the top: worker processes are pinned to their cores before numpy or JAX are imported.
"""
