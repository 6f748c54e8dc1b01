"""The submission CSV and its JSON files: write, check, score, and the ledger of uploads.

Rooms in reading order: ledger, record, answers, score, check, write.

Open: answers, check, ledger, record, score, write.
"""
