"""Studies: a finding of the papers, put to the test on a laptop. One TOML file each, beside this one.

    definition.py   the file: variants, seeds, what the finding implies
    plan.py         every variant with every seed: the commands to run, and which of them are done
    schedule.py     the commands, several at a time, each in a process of its own
    measures.py     a run folder -> numbers
    collect.py      all runs -> intervals over seeds, verdicts, study.json
    intervals.py    Student's t
    table.py        table.md
    plot.py         plot.svg

Adding one is one new TOML file here (or anywhere: ``searchr1 study mine.toml``).
"""
