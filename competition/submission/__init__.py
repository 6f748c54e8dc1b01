"""The submission CSV and its JSON files: write, check, score, and the ledger of uploads.

Rooms in reading order: ledger_damage, ledger, record, form, fields, answers, score, check, write.

Open: answers, check, form, ledger, ledger_damage, record, score, write.
"""
