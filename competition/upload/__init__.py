"""Send a submission to a leaderboard and record what came back.

Rooms in reading order: target, masking, wire, exchange, http, kaggle_client, kaggle, aistages,
evalai, folder, local, scores, choice, attempts, send, waiting, report, entered.

Open: send, entered, target, waiting, report.
"""
