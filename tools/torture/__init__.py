"""What the harness must survive, tried on purpose: kills, full disks, files that lie.

Rooms in reading order: homes, board_server, kills, disks, mutants, twice. ``docs/reliability.md``
has the figures; ``make torture`` repeats them.
"""
