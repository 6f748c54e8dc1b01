"""What a leaderboard can score by: one small room for each metric, and the dict of all of them.

A metric is a score of sums over rows (F1, accuracy, log-loss) or of each label's curve (AUPRC).
``catalogue`` names those that a profile can choose.

Rooms in reading order: metric, by_label, micro_f1, macro_f1, weighted_f1, accuracy, agreement,
kappa, mcc, log_loss, curve, auprc, average_precision, catalogue.

Open: metric, micro_f1, curve, auprc, catalogue.
"""
