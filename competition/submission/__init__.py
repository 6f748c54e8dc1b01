"""A submission CSV and what lies beside it: write, check, score, record.

Rooms in reading order: ledger, record, answers, score, check, write.

Open: answers, check, ledger, record, score, write.
"""
